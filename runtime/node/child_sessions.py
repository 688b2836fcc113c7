"""The children of a session: begun by its carrier, awaited, and ended with it.

The carrier's own events tell which children there are and what came of them, and its verdict is a function of these. A
child's id follows from its parent's id and the child's name: a carrier that died between having a child begun and
telling of it begins the same child again, which is none the second time.
"""

import asyncio
from collections.abc import Mapping
from contextlib import suppress

from contracts.errors import SwarmError
from contracts.ids import session_for
from runtime.log.archive import known
from runtime.log.session_log import SessionLog
from runtime.node.agent_context import SessionCancelled, Wakeup, first_done, why_cancelled, wish_to_cancel

TRY_AGAIN, MOST_TRIES = 1.0, 30
"""Seconds after which a child is asked again to end, and how often: the desk may be away for a while."""


class ChildSessions:
    """The children of the session that woke a handler; `role` carries the session and asks for them."""

    def __init__(self, role: str, wakeup: Wakeup) -> None:
        self._role, self._own, self._ground = role, wakeup.history, wakeup.ground

    async def train(self, name: str, request: Mapping[str, object]) -> str:
        """The session of the child of this name, begun as a trial unless it has begun before."""
        about = {"parent": self._own.id, "request_id": self._request_id(name)}
        return await self._ground.submit(request, "trial", asked_by=self._role, **about)

    async def fork(self, name: str, wish: Mapping[str, object]) -> str:
        """The same for a child that begins in the bits of another session; `wish` is a fork's."""
        about = {"under": self._own.id, "request_id": self._request_id(name)}
        return await self._ground.ask(self._role, "fork", {**wish, **about})

    def begun(self, name: str) -> SessionLog | None:
        """The child of this name when it has begun, told of by its parent or not."""
        child = self._ground.tail.histories.get(session_for(self._request_id(name)))
        return child if child is not None and child.state.genesis else None

    async def until_sealed(self, *sessions: str) -> list[SessionLog]:
        """These sessions once all are sealed; `SessionCancelled` when a person wants the parent to end before."""
        followed = [self._ground.history(session) for session in sessions]
        while True:
            logs = [known(log.id, self._ground.tail.histories, self._ground.home) or log for log in followed]
            if all(log.state.sealed for log in logs):
                return logs
            if why := why_cancelled(self._own.state):
                raise SessionCancelled(why)
            await first_done(*(log.grown(log.size) for log in (self._own, *followed)))

    async def resume(self, session: str) -> None:
        """Ask for a paused child to go on. The desk may be away, so a carrier looks again whether it does."""
        with suppress(SwarmError):
            await self._ground.command(self._role, "resume", {"session": session})

    async def cancel(self, reason: str) -> None:
        """Have every child end that has no outcome; returns when each was asked to, or has ended, as the log says.

        Children are found by what their genesis says, so those are among them of which the parent has not told.
        A carrier that dies meanwhile is woken again by the same wish, and asks those that are left.
        """
        for _ in range(MOST_TRIES):
            left = (child for child in self.unsealed() if not child.state.outcome)
            unasked = [child for child in left if wish_to_cancel(child.state) is None]
            if not unasked:
                return
            for child in unasked:
                await self._ground.cancel(self._role, child.id, reason)
            with suppress(TimeoutError):
                async with asyncio.timeout(TRY_AGAIN):
                    while any(not child.state.outcome and wish_to_cancel(child.state) is None for child in unasked):
                        await first_done(*(child.grown(child.size) for child in unasked))

    def unsealed(self) -> list[SessionLog]:
        """Every child that has begun, told of by its parent or not, and is not sealed."""
        logs = self._ground.tail.open_sessions()
        return [log for log in logs if log.state.genesis and log.state.genesis.parent == self._own.id]

    def _request_id(self, name: str) -> str:
        return f"{self._own.id}-{name}"
