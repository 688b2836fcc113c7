"""Whose turn it is to train: at most so many sessions at once, in the order in which they were requested.

A turn is memory of this process and no promise: after a restart those that wait ask again. What waits for children of
its own (a search, a proof) takes no turn, so that its trials always come to theirs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from contracts.session import Session
from runtime.jobs import memory, process

_RESERVE = 512 << 20
"""Bytes that are free before one more child that trains is begun beside another."""

_LOOK_AGAIN = 1.0
"""Seconds between two looks at what no event tells of: memory that became free."""

Place = tuple[bool, int, str]
"""Where a session stands in the queue: what has begun comes first, then by the place of the request in the log."""


def place(session: Session, requested: int) -> Place:
    """A session's place in the queue."""
    return (session.claim is None, requested, session.id)


class Turns:
    """The turns of one process. `most` is how many there are; 0 stands for one per core."""

    def __init__(self, most: int, *, free: Callable[[], int | None] = memory.free_bytes) -> None:
        self._most = most or process.cores()
        self._free = free
        self._training: set[str] = set()
        self._waiting: dict[str, Place] = {}
        self._changed = asyncio.Event()

    def ask(self, session: str, where: Place) -> None:
        """Stand in the queue; whoever asks twice keeps one place."""
        self._waiting[session] = where

    def take(self, session: str) -> bool:
        """Whether it is this one's turn now; it is then until `leave`."""
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
        """Give the turn back, or the place in the queue up."""
        self._waiting.pop(session, None)
        self._training.discard(session)
        self._tell()

    async def changed(self) -> None:
        """Return when it may be another's turn."""
        changed = self._changed
        try:
            async with asyncio.timeout(_LOOK_AGAIN):
                await changed.wait()
        except TimeoutError:
            return

    def _room(self) -> bool:
        """Whether memory is left for one more; the first needs none, for nothing would ever free it."""
        free = self._free() if self._training else None
        return free is None or free >= _RESERVE

    def _tell(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
