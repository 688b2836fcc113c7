"""What a search works with: sessions that are trials, jobs in children, and the log. It decides nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

import orjson

from bus import subjects
from contracts.errors import SwarmError
from contracts.hyperparameter_specialist import (
    LearningRateSuggested,
    SearchCancelled,
    SearchCompleted,
    SearchFailed,
    TrialFinished,
    TrialStarted,
)
from contracts.ids import session_for
from contracts.operator import CancelRequested
from contracts.session import Session
from runtime.jobs.profiles import Profile
from runtime.log.archive import known
from runtime.log.history import History
from runtime.node.agent import Say
from runtime.node.ground import Case

Sayings = LearningRateSuggested | TrialStarted | TrialFinished | SearchCompleted | SearchCancelled | SearchFailed


class SearchContext:
    """One search's session and the means to work on it."""

    def __init__(self, role: str, case: Case, say: Say[Sayings]) -> None:
        self.role = role
        self.say = say
        self.own = case.history
        self.ground = case.ground

    @property
    def now(self) -> Session:
        """The search's session at this moment."""
        return self.own.state

    @property
    def cancelled(self) -> str:
        """The reason that a person gave for cancelling the search; empty while none was asked."""
        wishes = [wish for _, wish in self.now.wishes if isinstance(wish, CancelRequested)]
        return (wishes[0].reason or f"{wishes[0].asked_by} wanted it") if wishes else ""

    async def submit(self, request: Mapping[str, Any], name: str) -> str:
        """Have a session trained as a trial called `name`; the same name is the same session."""
        return await self.ground.submit(
            request, "trial", asked_by=self.role, parent=self.own.id, request_id=self._request_id(name)
        )

    def submitted(self, name: str) -> Session | None:
        """The trial called `name` when it has been requested already."""
        history = self.ground.tail.histories.get(session_for(self._request_id(name)))
        return history.state if history is not None and history.state.genesis else None

    def history(self, session: str) -> History:
        """A trial's session; one that ended long ago is no longer in memory, and is read from its file."""
        return known(session, self.ground.tail.histories, self.ground.home) or self.ground.tail.history(session)

    async def cancel(self, session: str, reason: str) -> None:
        """Ask for a trial's end."""
        # The desk may be away, or refuse because the trial has ended: then it ends by itself.
        with suppress(SwarmError):
            body = orjson.dumps({"session": session, "reason": reason})
            await self.ground.wire.ask(subjects.command("cancel"), body)

    async def ask(self, job: str, args: Mapping[str, Any], profile: Profile) -> dict[str, Any]:
        """The answer of a job in a child."""
        log = self.ground.home.session(self.own.id) / "search.log"
        children, session = self.ground.children, self.own.id
        async with children.job(job, args, profile=profile, purpose="probe", session=session, log=log) as child:
            return await child.wait()

    def _request_id(self, name: str) -> str:
        return f"{self.own.id}-{name}"


async def any_grown(histories: Iterable[History], sizes: Iterable[int]) -> None:
    """Return once one of the sessions holds more events than it did."""
    waiting = [asyncio.ensure_future(one.grown(size)) for one, size in zip(histories, sizes, strict=True)]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for one in waiting:
            one.cancel()
