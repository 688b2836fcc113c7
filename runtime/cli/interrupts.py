"""SIGINT and SIGTERM from the first line of the program to its last: each ends it with 130 and a sentence.

While modules are imported no work has begun, so the process ends at once: an exception there may vanish in an
import hook or come out as another. A command is interrupted by `KeyboardInterrupt`, so that it clears away what it
made; asynchronous work is cancelled, again and again until it has ended, because libraries swallow a cancellation.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn, TypeVar

T = TypeVar("T")
Handler = Callable[[int, FrameType | None], None]

BOTH = (signal.SIGINT, signal.SIGTERM)
CODE = 130
_AGAIN = 2.0
"""Seconds after which work that was cancelled, and goes on, is cancelled once more."""

_signals: list[int] = []


def interrupted() -> bool:
    """Whether the command was asked to end since it began."""
    return bool(_signals)


def end_at_once() -> None:
    """From here on a signal ends the process where it is."""
    for number in BOTH:
        signal.signal(number, _end)


def _end(_number: int, _frame: FrameType | None) -> NoReturn:
    stream, text = 2, b"interrupted\n"
    if "--json" in sys.argv:
        stream, text = 1, b'{"error":{"code":"interrupted","message":"interrupted.","path":"","cure":""}}\n'
    os.write(stream, text)
    os._exit(CODE)


@contextmanager
def raising() -> Iterator[None]:
    """Inside, a signal is raised as `KeyboardInterrupt` where the command is, and kept in mind."""

    def interrupt(number: int, _: FrameType | None) -> None:
        _signals.append(number)
        raise KeyboardInterrupt

    _signals.clear()
    with _handled_by(interrupt):
        yield


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run asynchronous work to its end; `KeyboardInterrupt` when it was asked to end, the second time at once."""
    try:
        import asyncio

        try:
            return asyncio.run(_until_cancelled(work))
        except asyncio.CancelledError:
            if not interrupted():
                raise
            raise KeyboardInterrupt from None
    finally:
        work.close()  # what was interrupted before it began


async def _until_cancelled(work: Coroutine[Any, Any, T]) -> T:
    import asyncio

    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    again: list[asyncio.TimerHandle] = []

    def cancel() -> None:
        if task is not None and not task.done():
            task.cancel()
            again.append(loop.call_later(_AGAIN, cancel))

    def interrupt(number: int, _: FrameType | None) -> None:
        _signals.append(number)
        if len(_signals) > 1:
            raise KeyboardInterrupt
        loop.call_soon_threadsafe(cancel)

    with _handled_by(interrupt):
        try:
            return await work
        finally:
            for timer in again:
                timer.cancel()


@contextmanager
def _handled_by(handler: Handler) -> Iterator[None]:
    """Inside, both signals come to this handler; threads other than the main one never see any."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in BOTH}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, signal.SIG_DFL if previous is None else previous)
