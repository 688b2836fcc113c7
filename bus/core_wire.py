"""What is carried and not kept, over core NATS: telling, asking, hearing, answering."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator

import orjson

from bus.frames import MAX_PAYLOAD, WireMessage, publication
from bus.link import Link, Mailbox
from bus.port import Answer
from contracts.errors import Failed, SwarmError, TooLarge

_KEPT = 65_536
"""Messages that a slow hearer may be behind; then the oldest are dropped, for this is not the log."""


class CoreWire:
    """`Wire` over one connection."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def say(self, subject: str, body: bytes) -> None:
        """See `Wire.say`."""
        _fits(subject, body, self._link.limit)
        await self._link.send(publication(subject, "", b"", body))

    async def ask(self, subject: str, body: bytes, *, timeout: float = 5.0) -> bytes:
        """See `Wire.ask`."""
        _fits(subject, body, self._link.limit)
        await self._link.connected(timeout)
        return (await self._link.ask(subject, body, patience=timeout)).body

    @contextlib.asynccontextmanager
    async def hear(self, subjects: str) -> AsyncIterator[AsyncIterator[tuple[str, bytes]]]:
        """See `Wire.hear`."""
        mailbox = Mailbox(keep=_KEPT)
        await self._link.connected()
        close = await self._link.listen(subjects, mailbox.put)
        try:
            async with contextlib.aclosing(_pairs(mailbox)) as pairs:
                yield pairs
        finally:
            await close()

    @contextlib.asynccontextmanager
    async def answer(self, subjects: str, reply: Answer, *, queue: str = "") -> AsyncIterator[None]:
        """See `Wire.answer`."""
        at_work: set[asyncio.Task[None]] = set()

        async def respond(frame: WireMessage) -> None:
            body = await answer_of(reply, frame.subject, frame.body, self._link.limit)
            if frame.reply:
                with contextlib.suppress(SwarmError):
                    await self._link.send(publication(frame.reply, "", b"", body))

        def begin(frame: WireMessage) -> None:
            task = asyncio.create_task(respond(frame))
            at_work.add(task)
            task.add_done_callback(at_work.discard)

        await self._link.connected()
        close = await self._link.listen(subjects, begin, queue=queue)
        try:
            yield
        finally:
            await close()
            for task in at_work:
                task.cancel()
            await asyncio.gather(*at_work, return_exceptions=True)


def _fits(subject: str, body: bytes, limit: int) -> None:
    if len(body) > limit:
        raise TooLarge(
            f"{len(body)} bytes for {subject!r} are above the limit of {limit}.",
            cure="Put the bulk into a blob and name its digest.",
        )


async def answer_of(reply: Answer, subject: str, body: bytes, limit: int = MAX_PAYLOAD) -> bytes:
    """The reply as JSON; when it cannot be sent, its size included, the error object in its place."""
    try:
        said = await reply(subject, body)
        _fits(subject, said, limit)
        return said
    except SwarmError as refused:
        error = refused
    except Exception as broken:  # noqa: BLE001 - a responder that broke must not leave the asker waiting
        error = Failed(f"{type(broken).__name__}: {broken}")
    return orjson.dumps({"error": error.as_json()})


async def _pairs(mailbox: Mailbox) -> AsyncGenerator[tuple[str, bytes]]:
    while True:
        for frame in await mailbox.take():
            yield frame.subject, frame.body
