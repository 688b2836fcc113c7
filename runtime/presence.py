"""Who is there: heartbeats said and heard. Silence is counted from when this process could have heard anything."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass, field

import orjson

from bus import subjects
from bus.port import Wire
from contracts.errors import Refused, Unreachable

BEAT = 5.0
"""Seconds between two heartbeats."""


@dataclass
class Presence:
    """The last sign of life of every role, by the local clock."""

    wire: Wire
    instance: str
    connected_at: float = field(default_factory=time.monotonic)
    _seen: dict[tuple[str, str], float] = field(default_factory=dict)
    _mine: set[str] = field(default_factory=set)

    def here(self, role: str) -> None:
        """An agent of this process runs."""
        self._mine.add(role)

    def gone(self, role: str) -> None:
        """An agent of this process stopped."""
        self._mine.discard(role)

    def silent_seconds(self, role: str) -> float:
        """How long nobody of this role was heard; 0 while one runs in this process."""
        if role in self._mine:
            return 0.0
        heard = [at for (name, _), at in self._seen.items() if name == role]
        return time.monotonic() - max([*heard, self.connected_at])

    def instance_silent_seconds(self, role: str, instance: str) -> float:
        """How long one instance of a role was not heard."""
        if instance == self.instance and role in self._mine:
            return 0.0
        return time.monotonic() - max(self._seen.get((role, instance), 0.0), self.connected_at)

    def roster(self) -> list[tuple[str, str, float]]:
        """Every (role, instance, seconds since its last sign) heard of, this process's own included."""
        now = time.monotonic()
        mine = [(role, self.instance, 0.0) for role in sorted(self._mine)]
        others = [(role, at, now - seen) for (role, at), seen in sorted(self._seen.items()) if at != self.instance]
        return mine + others

    async def beat(self) -> None:
        """Say for ever that this process's agents are there."""
        while True:
            for role in sorted(self._mine):
                try:
                    await self.wire.say(subjects.heartbeat(role, self.instance), orjson.dumps({"role": role}))
                except Unreachable:
                    # Being cut off is not being dead: others count silence from their own reconnection.
                    break
            await asyncio.sleep(BEAT)

    async def hear(self) -> None:
        """Listen for ever to everybody's heartbeats; a guest may not, and waits for nobody."""
        with contextlib.suppress(Refused):
            async with self.wire.hear(subjects.heartbeats()) as beats:
                async for subject, _ in beats:
                    _, _, role, instance, _ = subject.split(".")
                    self._seen[role, instance] = time.monotonic()
