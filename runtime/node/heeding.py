"""Work for a session that stops within seconds when a person cancels the session, even if the work hangs."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from contracts.operator import CancelRequested
from contracts.session import SessionState
from runtime.log.session_log import SessionLog

T = TypeVar("T")

PATIENCE = 2.0
"""Seconds in which what works for a session may come to an end by itself after a cancel."""


class CancelledError(Exception):
    """A person has cancelled the session that was worked for."""


def wish_to_cancel(session: SessionState) -> CancelRequested | None:
    """The first cancel that was asked for and not obeyed yet."""
    return next((wish for _, wish in session.wishes if isinstance(wish, CancelRequested)), None)


def why_cancelled(session: SessionState) -> str:
    """The reason that was given for the first cancel, or who asked for it; empty while none was asked."""
    wish = wish_to_cancel(session)
    return (wish.reason or f"{wish.asked_by} wanted it") if wish else ""


async def first_done(*waits: Coroutine[Any, Any, object]) -> None:
    """Return once one of them has; the others are cancelled and have ended by then."""
    tasks = [asyncio.create_task(one) for one in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def unless_cancelled(history: SessionLog, work: Coroutine[Any, Any, T]) -> T:
    """The result of the work; `CancelledError`, with the work stopped, when a cancel comes before it.

    The work says nothing to the log: what is stopped in the middle of an append leaves its outcome in doubt.
    """
    doing = asyncio.create_task(work)
    cancelled = asyncio.create_task(_cancelled(history))
    try:
        await asyncio.wait((doing, cancelled), return_when=asyncio.FIRST_COMPLETED)
        if doing.done():
            return doing.result()
        raise CancelledError
    finally:
        doing.cancel()
        cancelled.cancel()
        await asyncio.gather(doing, cancelled, return_exceptions=True)


async def _cancelled(history: SessionLog) -> None:
    """Return some time after a person has cancelled the session."""
    while wish_to_cancel(history.state) is None:
        await history.grown(history.size)
    await asyncio.sleep(PATIENCE)
