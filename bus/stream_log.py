"""The log on JetStream: appends under optimistic concurrency, the head from the leader, records read in order.

Every append to a lane names the same filter, and one append is one atomic batch: the server checks the lane's last
sequence once and stores all records or none.

`OrderedReader` uses an ephemeral push consumer: fast, gap-free, over reconnects. The server numbers what it delivers
(the consumer sequence) and names the position in the stream (the stream sequence). A message that does not continue
both, or a silence longer than the heartbeat allows, makes the reader begin a consumer behind the last record that it
gave. Flow control is answered when the records before it were taken, so a slow reader slows the server down instead of
filling memory.

`DirectReader` uses direct gets, in batches: for identities that may create no consumer, such as guests and clients.
Each batch names the sequence before every record, so a gap shows. A follower asks again when the live feed hints at
something new, and now and then without a hint, because the feed is not the log.
"""

import asyncio
import base64
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from itertools import groupby

import orjson

from bus import frames
from bus.frames import WireMessage, delivery, publication
from bus.link import (
    ConnectionClosedError,
    Link,
    Lost,
    Mailbox,
    NoMessage,
    NoResponder,
    Silent,
    api,
    opened_inbox,
    parse,
)
from bus.port import Record, StoredRecord
from bus.rights import LIVE, READER
from bus.rights import api as prefix
from bus.subjects import stream
from contracts.errors import Ambiguous, Failed, NotVerified, Unreachable

HEARTBEAT = 2.0
_MISSED = 2.5
_FORGOTTEN_AFTER = 2.0
_PAUSE = 0.1
_CONTROL = 100


class StreamReader:
    """Records of one stream under a filter, after a sequence, until one (or for ever)."""

    def __init__(self, link: Link, stream: str, subjects: str, *, after: int, until: int | None) -> None:
        self._link = link
        self._stream = stream
        self._subjects = subjects
        self.after = after
        self._until = until


class OrderedReader(StreamReader):
    """Reads by an ephemeral push consumer."""

    _given: StoredRecord | None = None
    """The last record that was handed out."""

    async def batches(self) -> AsyncGenerator[list[StoredRecord]]:
        """The records, as many at once as have come; a generator that must be closed."""
        while self._until is None or self.after < self._until:
            before = self.after
            try:
                async with self._consumer() as mailbox:
                    async for batch in self._deliveries(mailbox):
                        yield batch
                        if self.after == self._until:
                            return
            except Unreachable as away:
                if self._until is not None or isinstance(away, ConnectionClosedError):
                    raise
            if self.after == before:
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
            seq, delivered = delivery(frame.reply)
            if delivered != count or seq <= self.after or self.after == self._until:
                break
            self.after = seq
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
        async with opened_inbox(self._link) as (inbox, mailbox):
            config = {
                "deliver_subject": inbox,
                "deliver_policy": "by_start_sequence",
                "opt_start_seq": self.after + 1,
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
            asked = orjson.dumps({"stream_name": self._stream, "config": config})
            parse(await self._link.ask(f"{READER}.{self._stream}", asked))
            yield mailbox

    async def _still_there(self) -> None:
        """After an interruption: the last record given must still be in the log."""
        if self._given is None:
            return
        try:
            answer = await api(self._link, f"STREAM.MSG.GET.{self._stream}", {"seq": self._given.seq})
            subject = answer["message"]["subject"]
        except NoMessage:
            subject = None
        if subject != self._given.subject:
            raise NotVerified(
                f"The log no longer holds record {self._given.seq}, which it served before.",
                cure="The store was lost or set back; the files of the home have what it held: swarm audit S",
            )


def _is_control(frame: WireMessage) -> bool:
    """Whether the server speaks itself: a heartbeat, or flow control."""
    return not frame.body and frame.status == _CONTROL


_BATCH = 500
_BYTES = 4 * 2**20
_END, _NOTHING = 204, 404
_SILENCE = 5.0
_POLL = (0.0, 0.01, 0.05, 1.0)
"""Seconds until an unanswered hint is looked into again; the last holds when there is no hint."""


class DirectReader(StreamReader):
    """Reads by direct gets."""

    async def batches(self) -> AsyncGenerator[list[StoredRecord]]:
        """The records, as many at once as have come; a generator that must be closed."""
        hints = Mailbox(keep=1)
        close = await self._link.listen(f"{LIVE}.{self._subjects}", hints.put) if self._until is None else None
        quiet = 0
        try:
            while self._until is None or self.after < self._until:
                before = self.after
                try:
                    async for batch in self.batch():
                        yield batch
                except Unreachable as away:
                    if self._until is not None or isinstance(away, ConnectionClosedError):
                        raise
                quiet = 0 if self.after > before else min(quiet + 1, len(_POLL) - 1)
                if quiet and await hints.take(_POLL[quiet]):
                    quiet = 0
        finally:
            if close:
                await close()

    async def batch(self) -> AsyncGenerator[list[StoredRecord]]:
        """What one answer holds, and `after` moved behind it; what is missing comes with the next."""
        await self._link.connected(None if self._until is None else 5.0)
        asked = {"seq": self.after + 1, "next_by_subj": self._subjects, "batch": _BATCH, "max_bytes": _BYTES}
        subject = f"{prefix(self._link.identity)}.DIRECT.GET.{self._stream}"
        previous = 0
        async with opened_inbox(self._link) as (inbox, mailbox):
            await self._link.send(publication(subject, inbox, b"", orjson.dumps(asked)))
            while taken := await mailbox.take(_SILENCE):
                batch = self._following(taken, previous)
                if batch:
                    previous = batch[-1].seq
                    yield batch
                if len(batch) < len(taken) or self.after == self._until:
                    return
            raise Unreachable("The log stopped in the middle of an answer.", cure="Read again.")

    def _following(self, frames: Sequence[WireMessage], previous: int) -> list[StoredRecord]:
        """The records of these frames, up to the end of the answer or to one before which something is missing."""
        batch: list[StoredRecord] = []
        for frame in frames:
            if frame.status in (_END, _NOTHING) or self.after == self._until:
                break
            stored, told = self._stored(frame)
            if told != previous:
                break
            previous = self.after = stored.seq
            batch.append(stored)
        return batch

    def _stored(self, frame: WireMessage) -> tuple[StoredRecord, int]:
        headers = frame.headers
        if frame.status or "Nats-Sequence" not in headers:
            raise Failed(f"The log refuses a direct get: {frame.head[:80]!r}.", cure="Has the bus been provisioned?")
        stored = StoredRecord(int(headers["Nats-Sequence"]), headers["Nats-Subject"], frame.body, frame.stored_headers)
        return stored, int(headers["Nats-Last-Sequence"])


ACK_WAIT = 5.0


class StreamLog:
    """`Log` over one connection. An `edge` identity may not create consumers and reads by direct gets instead."""

    def __init__(self, link: Link, *, partition: str = "00", edge: bool = False) -> None:
        self._link = link
        self._partition = partition
        self._reader = DirectReader if edge else OrderedReader
        self.ack_wait = ACK_WAIT

    async def append(self, records: Sequence[Record], *, lane: str, after: int) -> int:
        """See `Log.append`."""
        frames.append_size(records, lane, self._link.limit)
        await self._link.connected()
        try:
            batch, subjects = _batch(records, lane, after), {record.subject for record in records}
            answer = await self._link.ask_all(batch, subjects, self.ack_wait)
        except (Lost, Silent) as unknown:
            raise Ambiguous(
                f"No answer to an append to {lane!r}: it may or may not be stored.",
                cure="Read the lane's head and compare.",
            ) from unknown
        except NoResponder:
            raise Unreachable(f"No stream takes {lane!r} now: nothing was stored.", cure="Try again.") from None
        return int(parse(answer)["seq"])

    async def head(self, subjects: str) -> StoredRecord | None:
        """See `Log.head`."""
        verb = f"STREAM.MSG.GET.{stream(subjects, self._partition)}"
        try:
            message = (await api(self._link, verb, {"last_by_subj": subjects}))["message"]
        except NoMessage:
            return None
        block = base64.b64decode(message.get("hdrs", ""))
        body = base64.b64decode(message.get("data", ""))
        return StoredRecord(message["seq"], message["subject"], body, WireMessage("", "", b"", block).stored_headers)

    def read(
        self, subjects: str, *, after: int = 0, follow: bool = False
    ) -> AbstractAsyncContextManager[AsyncIterator[StoredRecord]]:
        """See `Log.read`."""
        if not follow:
            return contextlib.aclosing(_each(self._present(subjects, after)))
        reader = self._reader(self._link, stream(subjects, self._partition), subjects, after=after, until=None)
        return contextlib.aclosing(_each(reader.batches()))

    async def _present(self, subjects: str, after: int) -> AsyncGenerator[list[StoredRecord]]:
        """Up to the leader's head, however far behind the replica is that serves the reader.

        Most reads are short: they are one direct get. A consumer is made only for what is left.
        """
        last = await self.head(subjects)
        if last is None or last.seq <= after:
            return
        source, until = stream(subjects, self._partition), last.seq
        direct = DirectReader(self._link, source, subjects, after=after, until=until)
        async with contextlib.aclosing(direct.batch()) as batches:
            async for batch in batches:
                yield batch
        rest = self._reader(self._link, source, subjects, after=direct.after, until=until)
        async with contextlib.aclosing(rest.batches()) as batches:
            async for batch in batches:
                yield batch


async def _each(batches: AsyncGenerator[list[StoredRecord]]) -> AsyncGenerator[StoredRecord]:
    """The records one by one; closing it closes where they come from."""
    async with contextlib.aclosing(batches):
        async for batch in batches:
            for stored in batch:
                yield stored


def _batch(records: Sequence[Record], lane: str, after: int) -> Callable[[str], bytes]:
    """The publications of one append. The first is answered by nothing or a refusal, the last by the ack."""
    expected = frames.fields(
        {
            "Nats-Expected-Last-Subject-Sequence": str(after),
            "Nats-Expected-Last-Subject-Sequence-Subject": lane,
        }
    )
    if len(records) == 1:
        return lambda reply: _one(records[0], reply, expected)

    def frames_of(reply: str) -> bytes:
        last = len(records)
        name = "-".join(reply.split(".")[-2:]).encode()  # as unique as the inbox
        parts = []
        for n, record in enumerate(records, 1):
            own = b"Nats-Batch-Id: %s\r\nNats-Batch-Sequence: %d\r\n" % (name, n)
            if n == 1:
                own += expected
            elif n == last:
                own += b"Nats-Batch-Commit: 1\r\n"
            parts.append(_one(record, reply if n in (1, last) else "", own))
        return b"".join(parts)

    return frames_of


def _one(record: Record, reply: str, own: bytes) -> bytes:
    head = frames.head(own + frames.fields(record.headers))
    return frames.publication(record.subject, reply, head, record.body)
