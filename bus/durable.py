"""Wake-ups from a role's durable consumer: one at a time, retired when the server has heard so; it creates nothing."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager

import orjson

from bus.frames import WireMessage, publication
from bus.link import Link, Mailbox
from bus.port import StoredRecord, Wake
from bus.rights import api as prefix
from contracts.errors import Unreachable

_EXPIRES = 20.0
_HEARTBEAT = 5.0
_MISSED = 2.5
_CONTROL, _NOBODY = 100, 503
_ENDED = (404, 408, 409)
"""A request that ended without a message: nothing there, expired, or the consumer moved or went."""
_DELETED = b"consumer deleted"
_PATIENCE = 0.2


class DurableWakes:
    """`Wakes` over one connection. Each instance asks for one wake-up when it is ready for one, so that none waits
    behind another in an instance that is busy."""

    def __init__(self, link: Link, *, stream: str) -> None:
        self._link = link
        self._stream = stream

    def wakes(self, role: str) -> AbstractAsyncContextManager[AsyncIterator[Wake]]:
        """See `Wakes.wakes`."""
        return self._wakes(role)

    @contextlib.asynccontextmanager
    async def _wakes(self, role: str) -> AsyncIterator[AsyncIterator[Wake]]:
        async with contextlib.aclosing(self._each(role)) as each:
            yield each

    async def _each(self, role: str) -> AsyncGenerator[Wake]:
        while True:
            await self._link.connected(None)
            mailbox, inbox = Mailbox(), self._link.new_inbox()
            forget = self._link.on_loss(mailbox.lose)
            close = await self._link.listen(inbox, mailbox.put)
            try:
                while not mailbox.lost:
                    frame = await self._next(role, inbox, mailbox)
                    if frame is not None:
                        yield self._wake(frame)
            finally:
                forget()
                await close()

    async def _next(self, role: str, inbox: str, mailbox: Mailbox) -> WireMessage | None:
        """Ask for one message and wait for it, or for the end of the request."""
        asked = {"batch": 1, "expires": int(_EXPIRES * 1e9), "idle_heartbeat": int(_HEARTBEAT * 1e9)}
        subject = f"{prefix(self._link.identity)}.CONSUMER.MSG.NEXT.{self._stream}.{role}"
        with contextlib.suppress(Unreachable):
            await self._link.send(publication(subject, inbox, b"", orjson.dumps(asked)))
        while taken := await mailbox.take(_HEARTBEAT * _MISSED):
            for frame in taken:
                if frame.status == 0:
                    return frame
                if frame.status == _NOBODY or (frame.status in _ENDED and _DELETED in frame.head.lower()):
                    await asyncio.sleep(_PATIENCE)  # no such durable now: it may be on its way
                    return None
                if frame.status in _ENDED:
                    return None
        return None

    def _wake(self, frame: WireMessage) -> Wake:
        seq = int(frame.reply.split(".")[-4 if frame.reply.count(".") == 8 else -5])
        stored = StoredRecord(seq, frame.subject, frame.body, frame.stored_headers)

        async def done() -> None:
            await self._link.connected()
            await self._link.ask(frame.reply, b"+ACK")

        async def busy() -> None:
            await self._link.send(publication(frame.reply, "", b"", b"+WPI"))

        async def again(delay: float) -> None:
            asked = b"-NAK " + orjson.dumps({"delay": int(delay * 1e9)})
            await self._link.send(publication(frame.reply, "", b"", asked))

        return Wake(stored, done, busy, again)
