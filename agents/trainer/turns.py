"""Whose turn it is to train: at most so many sessions at once, in the order in which they were requested.

A turn is kept in memory only: after a restart every waiting session asks again. A session that waits for children of
its own (a search, a proof) takes no turn, so that its trials can always get one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from contracts.session import SessionState
from runtime.jobs import process, resources

_RESERVE = 512 << 20
"""Bytes of memory that must be free before another training child starts beside a running one."""

_LOOK_AGAIN = 1.0
"""Seconds between two looks at the free memory, of which no event tells."""

Place = tuple[bool, int, str]
"""The sort key of a session in the queue: begun sessions first, then by the place of the request in the log."""


def place(session: SessionState, requested: int) -> Place:
    """A session's place in the queue."""
    return (session.claim is None, requested, session.id)


class Turns:
    """The turns of one process: at most `most` sessions train at once; 0 means one per core."""

    def __init__(self, most: int, *, free: Callable[[], int | None] = resources.free_bytes) -> None:
        self._most = most or process.cores()
        self._free = free
        self._training: set[str] = set()
        self._waiting: dict[str, Place] = {}
        self._changed = asyncio.Event()

    def ask(self, session: str, where: Place) -> None:
        """Enter the queue; a session that asks again keeps its place."""
        self._waiting[session] = where

    def take(self, session: str) -> bool:
        """Take a turn if this session is next and there is room; True means that it holds the turn until `leave`."""
        if session in self._training:
            return True
        first = min(self._waiting.items(), key=lambda one: one[1], default=("", None))[0]
        if first != session or len(self._training) >= self._most or not self._room():
            return False
        del self._waiting[session]
        self._training.add(session)
        self._tell()
        return True

    def leave(self, session: str) -> None:
        """Give back the turn or the place in the queue."""
        self._waiting.pop(session, None)
        self._training.discard(session)
        self._tell()

    async def changed(self) -> None:
        """Return when a turn was given back, or after a while: memory may have become free without any event."""
        changed = self._changed
        try:
            async with asyncio.timeout(_LOOK_AGAIN):
                await changed.wait()
        except TimeoutError:
            return

    def _room(self) -> bool:
        """Whether memory is left for one more training; the first always starts, as waiting would free nothing."""
        free = self._free() if self._training else None
        return free is None or free >= _RESERVE

    def _tell(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
