"""The ports of the bus: what a log, wake-ups and the wire must do. No implementation lives here.

`Log` is the append-only truth, `Wakes` tells a role that something it hears has happened, `Wire` carries what is
not a fact (commands and their replies, telemetry, presence). `bus.memory` and `bus.jetstream` implement all three
and pass the same conformance suite.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple, Protocol


@dataclass(frozen=True, slots=True)
class Record:
    """One message to be stored: the bytes are kept as they are."""

    subject: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


class StoredRecord(NamedTuple):
    """One message as the log serves it; `seq` is its position in the whole stream, from 1, without gaps."""

    seq: int
    subject: str
    body: bytes
    headers: Mapping[str, str] = MappingProxyType({})


class Log(Protocol):
    """An append-only stream of records with optimistic concurrency per lane (a subject filter)."""

    async def append(self, records: Sequence[Record], *, lane: str, after: int) -> int:
        """Store all records at once or none, if `after` is still the last sequence stored under the filter `lane`.

        Returns the sequence of the last record. Raises `Conflict` (the lane moved, nothing stored), `TooLarge`,
        `Full`, `Refused` (not allowed), `Unreachable` (surely not stored) or `Ambiguous` (sent, outcome unknown).
        """

    async def head(self, subjects: str) -> StoredRecord | None:
        """The last record stored under a subject filter, read from the leader; None when there is none."""

    def read(
        self, subjects: str, *, after: int = 0, follow: bool = False
    ) -> AbstractAsyncContextManager[AsyncIterator[StoredRecord]]:
        """Records under a filter in stream order, each once, without gaps; ends at the present unless `follow`.

        With `follow` it survives reconnects and server restarts.
        """


@dataclass(frozen=True, slots=True)
class Wake:
    """A stored message as a wake-up of one role; `done()` retires it, `busy()` asks for more time."""

    stored: StoredRecord
    done: Callable[[], Awaitable[None]]
    busy: Callable[[], Awaitable[None]]
    again: Callable[[float], Awaitable[None]]


class Wakes(Protocol):
    """Durable wake-ups shared by all instances of a role: each message reaches one of them, at least once."""

    def wakes(self, role: str) -> AbstractAsyncContextManager[AsyncIterator[Wake]]:
        """The messages that the role's durable consumer (made by `Admin.consumer`) has not seen retired."""


class Admin(Protocol):
    """What only the provisioning identity may do."""

    async def provision(self) -> None:
        """Create or confirm the streams; idempotent."""

    async def consumer(self, role: str, subjects: Sequence[str]) -> None:
        """Create or update the durable of a role, filtered to the subjects that wake it; idempotent."""


Answer = Callable[[str, bytes], Awaitable[bytes]]
"""Given a subject and a body, the reply."""


class Wire(Protocol):
    """What is carried and not kept (telemetry is kept for a while, but never as a fact)."""

    async def say(self, subject: str, body: bytes) -> None:
        """Publish beside the log and return at once; the message may be lost."""

    async def ask(self, subject: str, body: bytes, *, timeout: float = 5.0) -> bytes:
        """Send a request and return the reply; `Unreachable` when none comes in time."""

    def hear(self, subjects: str) -> AbstractAsyncContextManager[AsyncIterator[tuple[str, bytes]]]:
        """Messages as they come, as (subject, body)."""

    def answer(self, subjects: str, reply: Answer, *, queue: str = "") -> AbstractAsyncContextManager[None]:
        """Answer requests while the context is open; instances with one `queue` share them."""
