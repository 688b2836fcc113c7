"""How a process is asked to end: once in good order, twice at once."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable


@contextlib.asynccontextmanager
async def asked_to_end(tell: Callable[[str], object] = str) -> AsyncIterator[asyncio.Event]:
    """An event that the first SIGTERM or SIGINT sets; the second is told, and ends the process at once."""
    loop, ending = asyncio.get_running_loop(), asyncio.Event()

    def end() -> None:
        if ending.is_set():
            tell("asked twice: ending at once")
            os._exit(130)
        ending.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end)
    try:
        yield ending
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
