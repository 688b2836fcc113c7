"""What the log, the wake-ups and the wire need of a connection to NATS (`bus.jetstream` makes one), and its answers.

What JetStream answers is told as our errors.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from typing import Any, Protocol

import orjson

from bus.frames import WireMessage
from bus.rights import api as prefix
from contracts.errors import Conflict, Failed, Full, InvalidInput, NotFound, Refused, SwarmError, TooLarge, Unreachable

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

    async def ask(self, subject: str, body: bytes = b"", *, patience: float = 5.0) -> WireMessage:
        """Request and reply. Raises `Lost`, `Silent`, `NoResponder`, or `Refused` when the server denies it."""

    async def ask_all(self, frames: Callable[[str], bytes], subjects: Collection[str], patience: float) -> WireMessage:
        """Send what `frames(reply)` gives and return the first answer with a body."""

    async def send(self, frames: bytes) -> None:
        """Write publications as they are."""

    async def listen(self, subject: str, handler: Handler, *, queue: str = "") -> Close:
        """Have every message under a filter handed to `handler`; over reconnects, until closed."""

    def new_inbox(self) -> str:
        """A subject that only this identity may hear."""

    def on_loss(self, tell: Callable[[], None]) -> Callable[[], None]:
        """Be told when the connection is lost; returns how to stop being told."""


@contextlib.asynccontextmanager
async def opened_inbox(link: Link) -> AsyncIterator[tuple[str, Mailbox]]:
    """A new inbox and the mailbox that it fills, which learns of a loss of the connection."""
    inbox, mailbox = link.new_inbox(), Mailbox()
    forget = link.on_loss(mailbox.lose)
    close = await link.listen(inbox, mailbox.put)
    try:
        yield inbox, mailbox
    finally:
        forget()
        await close()


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


_MEANINGS: tuple[tuple[frozenset[int], type[SwarmError], str], ...] = (
    (frozenset({10071, 10164}), Conflict, "Read the lane again."),
    (frozenset({10054, 10199}), TooLarge, "Split it, or put the bulk into a blob."),
    (frozenset({10023, 10028, 10047, 10122}), Full, "Free disk space, or raise the store's limit."),
    # Busy, leaderless, too many readers at once, or a batch cut short: surely not stored.
    (frozenset({10008, 10009, 10026, 10163, 10167, 10176, 10210, 10211}), Unreachable, "Try again."),
    (frozenset({10014, 10059}), NotFound, "Has the bus been provisioned?"),
    (frozenset({10174}), Refused, "Let the admin identity provision the streams."),
)
_NO_MESSAGE, _STORE_FAILED, _UNAVAILABLE = 10037, 10077, 503
_NO_ROOM = ("maximum bytes", "maximum messages", "no space", "resource")


class NoMessage(NotFound):
    """The stream is there and holds nothing under that filter."""


def refusal(error: Mapping[str, object]) -> SwarmError:
    """The error object of an API or publish answer, as what it means to us."""
    number, said = error.get("err_code", 0), str(error.get("description", "no reason given"))
    message = f"JetStream says: {said} ({number})."
    if number == _NO_MESSAGE:
        return NoMessage(message)
    if number == _STORE_FAILED and any(sign in said for sign in _NO_ROOM):
        return Full(message, cure="Free disk space, or raise the store's limit.")
    for numbers, meaning, cure in _MEANINGS:
        if number in numbers:
            return meaning(message, cure=cure)
    if error.get("code") == _UNAVAILABLE:
        return Unreachable(message, cure="Try again.")
    return Failed(message, cure="See the server's log.")


def parse(frame: WireMessage) -> dict[str, Any]:
    """The JSON of an answer; raises what its error means."""
    try:
        answer: dict[str, Any] = orjson.loads(frame.body)
    except orjson.JSONDecodeError:
        raise InvalidInput(f"JetStream answered with what is no JSON: {frame.body[:80]!r}.") from None
    if "error" in answer:
        raise refusal(answer["error"])
    return answer


async def api(link: Link, verb: str, asked: Mapping[str, Any] | None = None, patience: float = 5.0) -> dict[str, Any]:
    """One request of the JetStream API, such as `STREAM.INFO.EV_00`."""
    await link.connected()
    body = orjson.dumps(asked) if asked else b""
    return parse(await link.ask(f"{prefix(link.identity)}.{verb}", body, patience=patience))
