"""Notices a process that neither says nor computes anything although it should; what follows is others' work."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from runtime.jobs import process

_LOOKS = 10
"""How many looks at a process there are within the time after which it counts as stalled."""


async def standstill(
    pid: int, after: float, *, told: Callable[[], int] = lambda: 0, excused: Callable[[], bool] = lambda: False
) -> None:
    """Return when the process has used no processor and told nothing for `after` seconds, or is gone.

    One that waits by right (for an order, for its host to read) is excused. A loop without an end is not noticed:
    it cannot be told from a long step.
    """
    idle, before = 0, (-1, -1.0)
    while idle < _LOOKS:
        await asyncio.sleep(after / _LOOKS)
        used = process.cpu_seconds(pid)
        if used is None:
            return
        idle = idle + 1 if (told(), used) == before and not excused() else 0
        before = told(), used
