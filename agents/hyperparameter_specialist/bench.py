"""What a search works with: sessions that are trials, jobs in children, and the log. It decides nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from contracts.hyperparameter_specialist import (
    LearningRateSuggested,
    SearchCancelled,
    SearchCompleted,
    SearchFailed,
    TrialFinished,
    TrialStarted,
)
from contracts.ids import session_for
from contracts.session import SessionState
from runtime.jobs.profiles import Profile
from runtime.node.agent import Say
from runtime.node.agent_context import Wakeup, why_cancelled

Sayings = LearningRateSuggested | TrialStarted | TrialFinished | SearchCompleted | SearchCancelled | SearchFailed


class SearchContext:
    """One search's session and the means to work on it."""

    def __init__(self, role: str, case: Wakeup, say: Say[Sayings]) -> None:
        self.role = role
        self.say = say
        self.own = case.history
        self.ground = case.ground

    @property
    def now(self) -> SessionState:
        """The search's session at this moment."""
        return self.own.state

    @property
    def cancelled(self) -> str:
        """The reason that a person gave for cancelling the search; empty while none was asked."""
        return why_cancelled(self.now)

    async def submit(self, request: Mapping[str, Any], name: str) -> str:
        """Have a session trained as a trial called `name`; the same name is the same session."""
        return await self.ground.submit(
            request, "trial", asked_by=self.role, parent=self.own.id, request_id=self._request_id(name)
        )

    def submitted(self, name: str) -> SessionState | None:
        """The trial called `name` when it has been requested already."""
        history = self.ground.tail.histories.get(session_for(self._request_id(name)))
        return history.state if history is not None and history.state.genesis else None

    async def ask(self, job: str, args: Mapping[str, Any], profile: Profile) -> dict[str, Any]:
        """The answer of a job in a child."""
        log = self.ground.home.session(self.own.id) / "search.log"
        children, session = self.ground.children, self.own.id
        async with children.job(job, args, profile=profile, purpose="probe", session=session, log=log) as child:
            return await child.wait()

    def _request_id(self, name: str) -> str:
        return f"{self.own.id}-{name}"
