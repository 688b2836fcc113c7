"""Asynchronous work for callers that are not: run in a thread with a loop of its own, because a notebook has one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from contracts.errors import SwarmError

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
