"""How much a guest may say: whoever says far more than anybody could need is named, once, and turned out elsewhere."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from bus.port import Stored
from bus.subjects import guest_of

BURST_SECONDS = 100.0
"""A guest may say at once what it may say in so many seconds: answers to a backlog come together."""

_BYTES = 1024.0


@dataclass
class Allowance:
    """What a guest may still say now; it grows with time, up to a burst."""

    per_second: float
    left: float
    at: float

    def take(self, cost: float, now: float) -> bool:
        """Use some of it; False once it is used up."""
        self.left = min(self.per_second * BURST_SECONDS, self.left + (now - self.at) * self.per_second) - cost
        self.at = now
        return self.left >= 0


class Doorkeeper:
    """Sees every message that guests have stored, admitted or not: a message costs one, and one more per KiB."""

    def __init__(self, per_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_second = per_second
        self._clock = clock
        self._allowances: dict[str, Allowance] = {}
        self._named: asyncio.Queue[str] = asyncio.Queue()
        self._known: set[str] = set()

    def see(self, stored: Stored) -> None:
        """Count one message; it costs nothing unless it is a guest's."""
        lane = guest_of(stored.subject)
        if not lane:
            return
        now, burst = self._clock(), self._per_second * BURST_SECONDS
        allowance = self._allowances.setdefault(lane, Allowance(self._per_second, burst, now))
        if not allowance.take(1 + len(stored.body) / _BYTES, now) and lane not in self._known:
            self._known.add(lane)
            self._named.put_nowait(lane)

    def forget(self, lane: str) -> None:
        """Begin anew with a guest, such as one that is admitted again."""
        self._known.discard(lane)
        self._allowances.pop(lane, None)

    async def floods(self) -> AsyncIterator[str]:
        """The lanes of guests that said too much, for ever, each once."""
        while True:
            yield await self._named.get()
