"""Who is there: heartbeats said and heard. Silence is counted from when this process could have heard anything."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson

from bus import subjects
from bus.port import Wire
from contracts.errors import Refused, Unreachable

BEAT = 5.0
"""Seconds between two heartbeats."""

PRESENT = 3 * BEAT
"""A role that has not been heard for so long is not there."""

_REMEMBERED = 1000
"""How many instances, and how many events with nothing to say about, are kept in mind."""


class Seen(NamedTuple):
    """Somebody who is or was there: role, instance, seconds since the last sign, and what its blob store is called."""

    role: str
    instance: str
    seconds: float
    store: str


@dataclass
class Presence:
    """The last sign of life of every role, by the local clock."""

    wire: Wire
    instance: str
    store: str = ""
    """What the blob store here is called: roles that share work must share it."""
    beat_seconds: float = BEAT
    connected_at: float = field(default_factory=time.monotonic)
    _seen: dict[tuple[str, str], float] = field(default_factory=dict)
    _stores: dict[tuple[str, str], str] = field(default_factory=dict)
    _mine: set[str] = field(default_factory=set)
    _arrived: asyncio.Event = field(default_factory=asyncio.Event)
    _passed: deque[tuple[str, str]] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))

    def here(self, role: str) -> None:
        """An agent of this process runs; everybody hears so at once."""
        self._mine.add(role)
        self._arrived.set()

    def gone(self, role: str) -> None:
        """An agent of this process stopped."""
        self._mine.discard(role)

    def silent_seconds(self, role: str) -> float:
        """How long nobody of this role was heard; 0 while one runs in this process."""
        if role in self._mine:
            return 0.0
        heard = [at for (name, _), at in self._seen.items() if name == role]
        return time.monotonic() - max([*heard, self.connected_at])

    def heard(self, role: str) -> bool:
        """Whether somebody of this role has truly been heard of late."""
        now = time.monotonic()
        return role in self._mine or any(name == role and now - at < PRESENT for (name, _), at in self._seen.items())

    def passed(self, role: str, event: str) -> bool:
        """Whether the role has let it be known that it has nothing to say about an event."""
        return (role, event) in self._passed

    def instance_silent_seconds(self, role: str, instance: str) -> float:
        """How long one instance of a role was not heard."""
        if instance == self.instance and role in self._mine:
            return 0.0
        return time.monotonic() - max(self._seen.get((role, instance), 0.0), self.connected_at)

    def listening_seconds(self) -> float:
        """For how long this process could have heard anybody."""
        return time.monotonic() - self.connected_at

    def roster(self) -> list[Seen]:
        """Everybody heard of, this process's own included."""
        now = time.monotonic()
        mine = [Seen(role, self.instance, 0.0, self.store) for role in sorted(self._mine)]
        others = [
            Seen(role, at, now - seen, self._stores.get((role, at), ""))
            for (role, at), seen in sorted(self._seen.items())
            if at != self.instance
        ]
        return mine + others

    async def beat(self) -> None:
        """Say for ever that this process's agents are there."""
        while True:
            self._arrived.clear()
            for role in sorted(self._mine):
                await self._say(role)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.beat_seconds):
                    await self._arrived.wait()

    async def let_pass(self, role: str, event: str) -> None:
        """Let it be known that the role heard an event and has nothing to say about it."""
        await self._say(role, passed=event)

    async def hear(self) -> None:
        """Listen for ever to everybody's heartbeats; a guest may not, and waits for nobody."""
        with contextlib.suppress(Refused):
            async with self.wire.hear(subjects.heartbeats()) as beats:
                async for subject, body in beats:
                    self._take(subject, body)

    async def _say(self, role: str, **more: str) -> None:
        # Being cut off is not being dead: others count silence from their own reconnection.
        with contextlib.suppress(Unreachable):
            body = orjson.dumps({"role": role, "store": self.store, **more})
            await self.wire.say(subjects.heartbeat(role, self.instance), body)

    def _take(self, subject: str, body: bytes) -> None:
        _, _, role, instance, _ = subject.split(".")
        self._seen.pop((role, instance), None)
        self._seen[role, instance] = time.monotonic()
        while len(self._seen) > _REMEMBERED:
            self._stores.pop(oldest := next(iter(self._seen)), None)
            del self._seen[oldest]
        with contextlib.suppress(orjson.JSONDecodeError):
            said: Any = orjson.loads(body)
            if isinstance(said, dict) and isinstance(said.get("passed"), str):
                self._passed.append((role, said["passed"]))
            if isinstance(said, dict) and isinstance(said.get("store"), str):
                self._stores[role, instance] = said["store"][:64]
