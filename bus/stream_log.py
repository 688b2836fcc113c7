"""The log on JetStream: appends under optimistic concurrency, the head from the leader, reads of either kind.

Every append to a lane names the same filter, and one append is one atomic batch: the server checks the lane's last
sequence once and stores all records or none.
"""

from __future__ import annotations

import base64
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager

from bus import frames, limits
from bus.answers import NoMessage, api, parse
from bus.direct import DirectReader
from bus.frames import WireMessage
from bus.link import Link, Lost, NoResponder, Silent
from bus.ordered import OrderedReader
from bus.port import Record, StoredRecord
from bus.subjects import stream
from contracts.errors import Ambiguous, Unreachable

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
        limits.check(records, lane, self._link.limit)
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
        return self._read(subjects, after, follow=follow)

    @contextlib.asynccontextmanager
    async def _read(self, subjects: str, after: int, *, follow: bool) -> AsyncIterator[AsyncIterator[StoredRecord]]:
        batches = self._following(subjects, after) if follow else self._present(subjects, after)
        async with contextlib.aclosing(_each(batches)) as records:
            yield records

    def _following(self, subjects: str, after: int) -> AsyncGenerator[list[StoredRecord]]:
        return self._reader(self._link, stream(subjects, self._partition), subjects, after=after, until=None).batches()

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
