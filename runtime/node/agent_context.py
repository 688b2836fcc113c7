"""What a handler is given: services, the event and session that it is called for, and ways to heed a cancel."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from bus.blobs import DirectoryBlobs
from bus.notes import SignedTreeHead
from bus.port import Wire
from contracts.envelope import Fact
from contracts.errors import SwarmError
from contracts.event import Event
from contracts.operator import CancelRequested
from contracts.session import SessionState
from runtime.log import archive, session_log

if TYPE_CHECKING:
    from runtime.home.home import Home
    from runtime.home.settings import Settings
    from runtime.jobs.children import Children
    from runtime.log.follower import LogFollower
    from runtime.node.presence import Presence


@dataclass(frozen=True)
class AgentContext:
    """The services that a process gives its agents: home, settings, blobs, children, presence, and ways to ask."""

    home: Home
    settings: Settings
    tail: LogFollower
    wire: Wire
    blobs: DirectoryBlobs
    children: Children
    presence: Presence
    instance: str
    incarnation: str
    draining: asyncio.Event
    """Set when the process is about to end in good order: long work is put where it can be taken up again."""
    sign_note: Callable[[SignedTreeHead], str]
    """A checkpoint of a session's tree as a note signed by the ledger's key."""
    submit: Callable[..., Awaitable[str]]
    """Request a session as a fact: (request, kind, asked_by, parent, request_id) -> session id."""
    ask: Callable[[str, str, Mapping[str, object]], Awaitable[str]]
    """Have the front desk begin a session by a command, and wait until it was read: (role, verb, body) -> session."""
    command: Callable[[str, str, Mapping[str, object]], Awaitable[Mapping[str, Any]]]
    """Ask the front desk once, as a role that asks: (role, verb, body) -> reply."""
    speak: Callable[[str, str, Event, str], Awaitable[tuple[Fact, ...]]]
    """Say one event in a role's lane outside any handler: (role, session, event, cause)."""

    def history(self, session: str) -> session_log.SessionLog:
        """A session as it is followed, or read from its file when it ended long ago and is in memory no longer."""
        return archive.known(session, self.tail.histories, self.home) or self.tail.history(session)

    async def cancel(self, role: str, session: str, reason: str) -> None:
        """Ask for a session's end, as a role that asks."""
        # The desk may be away, or refuse because the session has ended: then it ends by itself.
        with suppress(SwarmError):
            await self.command(role, "cancel", {"session": session, "reason": reason})


@dataclass(frozen=True)
class Wakeup:
    """One call of a handler: the event that it heard, and the session it belongs to."""

    fact: Fact
    session: SessionState
    """The fold after the batch that woke the handler: the same at every retry and after restarts."""
    history: session_log.SessionLog
    ground: AgentContext
    position: int

    @property
    def now(self) -> SessionState:
        """The fold after the newest fact: a retry may see more than the first call did."""
        return self.history.state

    def derived(self, start: session_log.D) -> session_log.D:
        """The agent's own fold over the facts up to the end of the waking batch, from its first value `start`."""
        return self.history.derived(start, self.position)


Case = Wakeup
"""The name under which guest agents have imported it."""


T = TypeVar("T")

PATIENCE = 2.0
"""Seconds in which what works for a session may come to an end by itself after a cancel."""


class SessionCancelled(Exception):
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


async def unless_cancelled(history: session_log.SessionLog, work: Coroutine[Any, Any, T]) -> T:
    """The result of the work; `SessionCancelled`, with the work stopped, when a cancel comes before it.

    The work says nothing to the log: what is stopped in the middle of an append leaves its outcome in doubt.
    """

    async def cancel_and_patience() -> None:
        while wish_to_cancel(history.state) is None:
            await history.grown(history.size)
        await asyncio.sleep(PATIENCE)

    doing, cancelled = asyncio.create_task(work), asyncio.create_task(cancel_and_patience())
    try:
        await asyncio.wait((doing, cancelled), return_when=asyncio.FIRST_COMPLETED)
        if doing.done():
            return doing.result()
        raise SessionCancelled
    finally:
        doing.cancel()
        cancelled.cancel()
        await asyncio.gather(doing, cancelled, return_exceptions=True)
