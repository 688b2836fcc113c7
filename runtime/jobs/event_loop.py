"""A process's event loop: how it is asked to end, and asynchronous work for callers that have none."""

import asyncio
import contextlib
import os
import signal
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, TypeVar

from contracts.errors import SwarmError


@contextlib.asynccontextmanager
async def end_requested(tell: Callable[[str], object] = str) -> AsyncIterator[asyncio.Event]:
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


T = TypeVar("T")


def in_thread(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run asynchronous work to its end in a thread with a loop of its own: a notebook's loop is running already."""
    outcome: list[T | BaseException] = []
    loop = asyncio.new_event_loop()
    task: list[asyncio.Task[Any]] = []

    async def kept() -> T:
        current = asyncio.current_task()
        assert current is not None  # noqa: S101 - this runs as a task
        task.append(current)
        return await work()

    def run() -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            try:
                outcome.append(runner.run(kept()))
            except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
                outcome.append(error)

    thread = threading.Thread(target=run, name="swarm-client", daemon=True)
    thread.start()
    try:
        thread.join()
    except KeyboardInterrupt:
        # The person stops watching; the session goes on.
        if task:
            loop.call_soon_threadsafe(task[0].cancel)
        thread.join()
        raise
    if isinstance(outcome[0], BaseException):
        raise _ours(outcome[0])
    return outcome[0]


def _ours(error: BaseException) -> BaseException:
    """The error of ours among those that tasks raised together."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    known = [_ours(one) for one in error.exceptions]
    return next((one for one in known if isinstance(one, SwarmError)), error)
