"""Reading the log by direct gets, in batches: for identities that may create no consumer, such as guests and clients.

Each batch names the sequence before every record, so a gap shows. A follower asks again when the live feed hints at
something new, and now and then without a hint, because the feed is not the log.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

import orjson

from bus.frames import WireMessage, publication
from bus.link import ConnectionClosedError, Link, Mailbox
from bus.port import StoredRecord
from bus.rights import LIVE
from bus.rights import api as prefix
from contracts.errors import Failed, Unreachable

_BATCH = 500
_BYTES = 4 * 2**20
_END, _NOTHING = 204, 404
_SILENCE = 5.0
_POLL = (0.0, 0.01, 0.05, 1.0)
"""Seconds until an unanswered hint is looked into again; the last holds when there is no hint."""


class DirectReader:
    """Records of one stream under a filter, after a sequence, until one (or for ever)."""

    def __init__(self, link: Link, stream: str, subjects: str, *, after: int, until: int | None) -> None:
        self._link = link
        self._stream = stream
        self._subjects = subjects
        self.after = after
        self._until = until

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
        mailbox, inbox = Mailbox(), self._link.new_inbox()
        forget = self._link.on_loss(mailbox.lose)
        close = await self._link.listen(inbox, mailbox.put)
        asked = {"seq": self.after + 1, "next_by_subj": self._subjects, "batch": _BATCH, "max_bytes": _BYTES}
        subject = f"{prefix(self._link.identity)}.DIRECT.GET.{self._stream}"
        previous = 0
        try:
            await self._link.send(publication(subject, inbox, b"", orjson.dumps(asked)))
            while taken := await mailbox.take(_SILENCE):
                batch = self._following(taken, previous)
                if batch:
                    previous = batch[-1].seq
                    yield batch
                if len(batch) < len(taken) or self.after == self._until:
                    return
            raise Unreachable("The log stopped in the middle of an answer.", cure="Read again.")
        finally:
            forget()
            await close()

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
