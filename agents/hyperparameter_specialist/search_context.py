"""What every way of searching works with: the search's session, its trials, jobs in children."""

from typing import Never, TypeVar

from contracts import hyperparameter_specialist as events
from contracts.session import SessionState
from runtime.jobs.job import Job
from runtime.node.agent import Say
from runtime.node.agent_context import Wakeup, why_cancelled
from runtime.node.child_sessions import ChildSessions

A = TypeVar("A")
R = TypeVar("R")
Sayings = (
    events.LearningRateSuggested
    | events.TrialStarted
    | events.TrialFinished
    | events.TrialMeasured
    | events.TrialPaused
    | events.RungDecided
    | events.GenerationDecided
    | events.LineageTraced
    | events.SearchLimited
    | events.SearchCompleted
    | events.SearchCancelled
    | events.SearchFailed
)


class SearchContext:
    """What a search works with: its session, sessions that are trials, jobs in children. It decides nothing."""

    def __init__(self, role: str, wakeup: Wakeup, say: Say[Sayings]) -> None:
        self.role, self.say = role, say
        self.own, self.ground = wakeup.history, wakeup.ground
        self.trials = ChildSessions(role, wakeup)

    @property
    def now(self) -> SessionState:
        """The search's session at this moment."""
        return self.own.state

    @property
    def cancelled(self) -> str:
        """The reason that a person gave for cancelling the search; empty while none was asked."""
        return why_cancelled(self.now)

    async def ask(self, job: Job[A, R, Never, Never], argument: A) -> R:
        """The answer of a job in a child."""
        log = self.ground.home.session(self.own.id) / "search.log"
        return await self.ground.children.run(job, argument, session=self.own.id, log=log)

    async def cancel(self, trials: int, best: events.TrialFinished | None) -> None:
        """End the search and its trials, as a person wants; `trials` have ended by then."""
        await self.trials.cancel("its search was cancelled")
        best_session = best.session if best else None
        await self.say(events.SearchCancelled(reason=self.cancelled, trials=trials, best_session=best_session))
