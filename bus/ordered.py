"""Reading the log in order by an ephemeral push consumer: fast, gap-free, over reconnects; it appends nothing.

The server numbers what it delivers (the consumer sequence) and names the position in the stream (the stream sequence).
A message that does not continue both, or a silence longer than the heartbeat allows, makes the reader begin a consumer
behind the last record that it gave. Flow control is answered when the records before it were taken, so a slow reader
slows the server down instead of filling memory.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from itertools import groupby

import orjson

from bus.answers import NoMessage, api, parse
from bus.frames import WireMessage, publication
from bus.link import ConnectionClosedError, Link, Mailbox
from bus.port import StoredRecord
from bus.rights import READER
from contracts.errors import NotVerified, Unreachable

HEARTBEAT = 2.0
_MISSED = 2.5
_FORGOTTEN_AFTER = 2.0
_PAUSE = 0.1
_CONTROL = 100


class OrderedReader:
    """Records of one stream under a filter, after a sequence, until one (or for ever)."""

    def __init__(self, link: Link, stream: str, subjects: str, *, after: int, until: int | None) -> None:
        self._link = link
        self._stream = stream
        self._subjects = subjects
        self._after = after
        self._until = until
        self._given: StoredRecord | None = None

    async def batches(self) -> AsyncGenerator[list[StoredRecord]]:
        """The records, as many at once as have come; a generator that must be closed."""
        while self._until is None or self._after < self._until:
            before = self._after
            try:
                async with self._consumer() as mailbox:
                    async for batch in self._deliveries(mailbox):
                        yield batch
                        if self._after == self._until:
                            return
            except Unreachable as away:
                if self._until is not None or isinstance(away, ConnectionClosedError):
                    raise
            if self._after == before:
                # Consumers that came to nothing live on in the server for a while: do not heap them up.
                await asyncio.sleep(_PAUSE)

    async def _deliveries(self, mailbox: Mailbox) -> AsyncGenerator[list[StoredRecord]]:
        """What one consumer delivers, until something is missing."""
        position = 0
        while taken := await mailbox.take(HEARTBEAT * _MISSED):
            for of_the_server, group in groupby(taken, _is_control):
                frames = list(group)
                if of_the_server:
                    if not all([await self._control(frame, position) for frame in frames]):
                        return
                    continue
                batch = self._following(frames, position)
                position += len(batch)
                if batch:
                    yield batch
                if len(batch) < len(frames):
                    return

    def _following(self, frames: Sequence[WireMessage], position: int) -> list[StoredRecord]:
        """The records of these deliveries, up to one that does not continue what came before."""
        batch: list[StoredRecord] = []
        for count, frame in enumerate(frames, position + 1):
            seq, delivered = _sequences(frame.reply)
            if delivered != count or seq <= self._after or self._after == self._until:
                break
            self._after = seq
            self._given = StoredRecord(seq, frame.subject, frame.body, frame.stored_headers)
            batch.append(self._given)
        return batch

    async def _control(self, frame: WireMessage, position: int) -> bool:
        """Answer flow control; False when a heartbeat tells of a delivery that did not arrive."""
        headers = frame.headers
        wanted = frame.reply or headers.get("Nats-Consumer-Stalled", "")
        if wanted:
            await self._link.send(publication(wanted, "", b"", b""))
        return int(headers.get("Nats-Last-Consumer", position)) == position

    @contextlib.asynccontextmanager
    async def _consumer(self) -> AsyncIterator[Mailbox]:
        await self._link.connected(None if self._until is None else 5.0)
        await self._still_there()
        mailbox, inbox = Mailbox(), self._link.new_inbox()
        forget = self._link.on_loss(mailbox.lose)
        close = await self._link.listen(inbox, mailbox.put)
        try:
            parse(await self._link.ask(f"{READER}.{self._stream}", self._config(inbox)))
            yield mailbox
        finally:
            forget()
            await close()

    def _config(self, inbox: str) -> bytes:
        config = {
            "deliver_subject": inbox,
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": self._after + 1,
            "filter_subject": self._subjects,
            "ack_policy": "none",
            "max_deliver": 1,
            "replay_policy": "instant",
            "flow_control": True,
            "idle_heartbeat": int(HEARTBEAT * 1e9),
            "inactive_threshold": int(_FORGOTTEN_AFTER * 1e9),
            "mem_storage": True,
            "num_replicas": 1,
        }
        return orjson.dumps({"stream_name": self._stream, "config": config})

    async def _still_there(self) -> None:
        """After an interruption: the last record given must still be in the log."""
        if self._given is None:
            return
        try:
            found = await api(self._link, f"STREAM.MSG.GET.{self._stream}", {"seq": self._given.seq})
        except NoMessage:
            found = {"message": {"subject": None}}
        if found["message"]["subject"] != self._given.subject:
            raise NotVerified(
                f"The log no longer holds record {self._given.seq}, which it served before.",
                cure="The store was lost or set back; the files of the home have what it held: swarm audit S",
            )


def _is_control(frame: WireMessage) -> bool:
    """Whether the server speaks itself: a heartbeat, or flow control."""
    return not frame.body and frame.status == _CONTROL


def _sequences(reply: str) -> tuple[int, int]:
    """Stream and consumer sequence in an ack subject of either form."""
    if reply.count(".") == 8:
        _, seq, count, _, _ = reply.rsplit(".", 4)
    else:
        seq, count = reply.split(".")[7:9]
    return int(seq), int(count)
