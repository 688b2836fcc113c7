"""What the log, the wake-ups and the wire need of a connection to NATS; `bus.jetstream` makes one."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Collection
from typing import Protocol

from bus.frames import WireMessage
from contracts.errors import Unreachable

Handler = Callable[[WireMessage], None]
"""Takes a message as it comes; it must not block and must not raise."""

Close = Callable[[], Awaitable[None]]


class Lost(Unreachable):
    """The connection broke while an answer was awaited: what was asked may or may not have happened."""


class ConnectionClosedError(Unreachable):
    """The connection was closed on this side: it will not come back."""


class Silent(Unreachable):
    """No answer came in time; the request may have been carried out."""


class NoResponder(Unreachable):
    """The server says that the subject has no listener: nothing was delivered."""


class Link(Protocol):
    """One identity's connection; it comes back by itself and tells those who want to know that it was away."""

    identity: str
    limit: int
    """Bytes of headers and body that the server takes in one message."""

    async def connected(self, patience: float | None = 5.0) -> None:
        """Wait for the connection; `Unreachable` after `patience` seconds, `ConnectionClosedError` if none comes."""
        ...

    async def ask(self, subject: str, body: bytes = b"", *, patience: float = 5.0) -> WireMessage:
        """Request and reply. Raises `Lost`, `Silent`, `NoResponder`, or `Refused` when the server denies it."""
        ...

    async def ask_all(self, frames: Callable[[str], bytes], subjects: Collection[str], patience: float) -> WireMessage:
        """Send what `frames(reply)` gives and return the first answer with a body."""
        ...

    async def send(self, frames: bytes) -> None:
        """Write publications as they are."""
        ...

    async def listen(self, subject: str, handler: Handler, *, queue: str = "") -> Close:
        """Have every message under a filter handed to `handler`; over reconnects, until closed."""
        ...

    def new_inbox(self) -> str:
        """A subject that only this identity may hear."""
        ...

    def on_loss(self, tell: Callable[[], None]) -> Callable[[], None]:
        """Be told when the connection is lost; returns how to stop being told."""
        ...


class Mailbox:
    """Messages between the connection, which puts, and one reader, who takes all there are."""

    def __init__(self, keep: int | None = None) -> None:
        self._frames: deque[WireMessage] = deque(maxlen=keep)
        self._news = asyncio.Event()
        self.lost = False

    def put(self, frame: WireMessage) -> None:
        """Never blocks; with `keep` the oldest falls out."""
        if not self._frames:
            self._news.set()
        self._frames.append(frame)

    def lose(self) -> None:
        """Say that the connection is gone: what was put before is still taken, then `take` gives nothing."""
        self.lost = True
        self._news.set()

    async def take(self, patience: float | None = None) -> list[WireMessage]:
        """All that came; empty after `patience` seconds of silence or a loss."""
        if not self._frames and not self.lost:
            self._news.clear()
            try:
                async with asyncio.timeout(patience):
                    await self._news.wait()
            except TimeoutError:
                return []
        taken = list(self._frames)
        self._frames.clear()
        return taken
