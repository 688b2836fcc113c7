"""How much a guest may say, in the log and beside it: who says far too much is named once, and turned out elsewhere."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field

from bus.port import Log, StoredRecord
from bus.subjects import GUEST, GUESTS, guest_of

BURST_SECONDS = 100.0
"""A guest may say at once what it may say in so many seconds: answers to a backlog come together."""

VOID = 100.0
"""What a message that was not admitted costs on top: honest guests have only a few of them."""

BESIDE = 0.05
"""What a message beside the log costs: it fills nothing, and a guest may let every event of a busy swarm pass."""

SHARE = 1 / 16
"""The share of the log's budget that one guest may fill, from its admission on."""

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


@dataclass(frozen=True)
class GuestTotals:
    """How many bytes each guest has stored up to a message, as a host has counted them before."""

    seq: int = 0
    stored: Mapping[str, int] = field(default_factory=dict)


class RateLimit:
    """Sees every message that guests have stored, admitted or not: a message costs one, and one more per KiB."""

    def __init__(
        self, per_second: float, clock: Callable[[], float] = time.monotonic, budget: float = math.inf
    ) -> None:
        """`budget` is how many bytes one guest may store in all."""
        self._per_second = per_second
        self._clock = clock
        self._budget = budget
        self._stored: dict[str, int] = {}
        self._allowances: dict[str, Allowance] = {}
        self._named: asyncio.Queue[str] = asyncio.Queue()
        self._known: set[str] = set()

    def see(self, stored: StoredRecord) -> None:
        """Count one message; it costs nothing unless it is a guest's."""
        lane = guest_of(stored.subject)
        if not lane:
            return
        self._stored[lane] = self._stored.get(lane, 0) + _size(stored)
        self._charge(lane, 1 + len(stored.body) / _BYTES)

    def see_void(self, subject: str) -> None:
        """Count one message that was not admitted, besides what it cost already."""
        if lane := guest_of(subject):
            self._charge(lane, VOID)

    def see_beside(self, subject: str, body: bytes) -> None:
        """Count what a guest says beside the log: heartbeats, which also let events pass, and dead letters."""
        role = subject.split(".")[2]
        if role.startswith(GUEST):
            self._charge(role, BESIDE + len(body) / _BYTES)

    @property
    def stored(self) -> dict[str, int]:
        """By lane, the bytes that each guest has stored since it was admitted, as far as they are counted."""
        return dict(self._stored)

    async def count(self, log: Log, admitted: Mapping[str, int], upto: int, before: GuestTotals) -> None:
        """Count what the log holds up to a message and `see` has not been shown, for it was stored in another life.

        `admitted` has the guests of today and where each was admitted last: what was stored before does not count.
        Of the log only what guests stored behind what is counted already is read.
        """
        found = {lane: before.stored.get(lane, 0) for lane, since in admitted.items() if since <= before.seq}
        async with log.read(GUESTS, after=before.seq) as messages:
            async for stored in messages:
                if stored.seq > upto:
                    break
                lane = guest_of(stored.subject)
                if stored.seq > admitted.get(lane, upto):
                    found[lane] = found.get(lane, 0) + _size(stored)
        for lane, size in found.items():
            self._stored[lane] = self._stored.get(lane, 0) + size
            self._charge(lane, 0)

    def _charge(self, lane: str, cost: float) -> None:
        now, burst = self._clock(), self._per_second * BURST_SECONDS
        allowance = self._allowances.setdefault(lane, Allowance(self._per_second, burst, now))
        is_within = allowance.take(cost, now) and self._stored.get(lane, 0) <= self._budget
        if not is_within and lane not in self._known:
            self._known.add(lane)
            self._named.put_nowait(lane)

    def forget(self, lane: str) -> None:
        """Forget what a guest has used, because its owner has admitted it again."""
        self._known.discard(lane)
        self._allowances.pop(lane, None)
        self._stored.pop(lane, None)

    async def floods(self) -> AsyncIterator[str]:
        """The lanes of guests that said too much, for ever, each once."""
        while True:
            yield await self._named.get()


def _size(stored: StoredRecord) -> int:
    return len(stored.subject) + len(stored.body)
