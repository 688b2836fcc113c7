"""What the hyperparameter specialist says: suggestions, and the course of a search whose trials are sessions."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Literal

from pydantic import Field, JsonValue

from contracts.errors import ProblemType
from contracts.event import Event, Exact, Value, unchanged
from contracts.kind import Carrier, Ended, Kind, KindState, having
from contracts.operator import CancelRequested
from contracts.roles import HYPERPARAMETER_SPECIALIST

if TYPE_CHECKING:
    from contracts.session import SessionState


class LearningRateSuggested(Event, lane=HYPERPARAMETER_SPECIALIST, wire="learning_rate.suggested"):
    """A range test's curve and the rate it points to."""

    rates: list[Exact]
    losses: list[Exact]
    suggestion: Exact
    steepest: Exact
    diverged_at: Exact | None = None


class TrialStarted(
    Event, lane=HYPERPARAMETER_SPECIALIST, wire="trial.started", upcasts=[unchanged, unchanged, unchanged]
):
    """A set of parameters is tried as a session of its own.

    Since version 3 it names an earlier trial of the same request, whose session it shares: the same data, model and
    seed are not trained twice. Since version 4 `sessions` are those of all its seeds, in their order, where it has
    several; `session` is the first one."""

    number: int
    session: str
    parameters: dict[str, JsonValue]
    same_as: int | None = None
    sessions: list[str] = Field(default_factory=list)

    @property
    def by_seed(self) -> list[str]:
        """Its sessions: one for each seed."""
        return self.sessions or [self.session]


class SeedResult(Value):
    """What a trial came to with one of its seeds: its values by metric, as far as it has any."""

    seed: int
    session: str
    state: str
    epochs: int
    values: dict[str, Exact]


class TrialFinished(
    Event, lane=HYPERPARAMETER_SPECIALIST, wire="trial.finished", upcasts=[unchanged, unchanged, unchanged]
):
    """A trial's session ended with this value, or without one, after so many epochs (told since version 2).

    Since version 3 `values` holds each objective of which it has a finite value, by its metric. Since version 4, of a
    trial with several seeds, values are means over all of them, `spread` is the standard deviation of each and `epochs`
    the sum; a trial whose state is `completed` has completed with every seed.
    """

    number: int
    session: str
    state: str
    value: Exact | None = None
    epochs: int = 0
    values: dict[str, Exact] = Field(default_factory=dict)
    spread: dict[str, Exact] = Field(default_factory=dict)
    seeds: list[SeedResult] = Field(default_factory=list)


class TrialPaused(Event, lane=HYPERPARAMETER_SPECIALIST, wire="trial.paused", upcasts=[unchanged]):
    """A trial waits at a rung, after so many epochs: its value by then, and that of half as many epochs.

    Since version 2 the same of each objective, by its metric; half the epochs tell of metrics of the validation alone.
    With several seeds these are means over all of them, and of a seed that has ended both are what it came to.
    """

    number: int
    rung: int
    epochs: int
    value: Exact | None = None
    earlier: Exact | None = None
    values: dict[str, Exact] = Field(default_factory=dict)
    earlier_values: dict[str, Exact] = Field(default_factory=dict)


ConstraintName = Literal["max_memory_mb", "max_latency_ms", "min_accuracy", "max_size_mb"]


class ConstraintMeasure(Value):
    """What a trial comes to by one constraint of its search: the median of `n` measurements, or why there is none."""

    constraint: ConstraintName
    limit: Exact
    value: Exact | None
    n: int
    missing: str = ""

    @property
    def excess(self) -> float:
        """By what share of the limit the value is beyond it: at most 0 where the constraint is kept, infinite where
        nothing was measured."""
        if self.value is None:
            return inf
        beyond = self.limit - self.value if self.constraint == "min_accuracy" else self.value - self.limit
        return beyond / self.limit

    @property
    def words(self) -> str:
        """The measure as people read it."""
        if self.value is None:
            return f"{self.constraint} could not be measured: {self.missing}"
        if self.excess <= 0:
            return f"{self.constraint} {self.limit:g} is kept with {self.value:.4g}"
        side = "too little" if self.constraint == "min_accuracy" else "too much"
        return f"{self.constraint} {self.limit:g} is broken with {self.value:.4g}, {100 * self.excess:.3g} % {side}"


class TrialMeasured(Event, lane=HYPERPARAMETER_SPECIALIST, wire="trial.measured"):
    """What a trial that has completed comes to by the constraints of its search; told together with its end.

    A trial that breaks one, or of which one could not be measured, is infeasible: it is never the best.
    """

    number: int
    session: str
    measures: list[ConstraintMeasure]

    @property
    def excesses(self) -> tuple[float, ...]:
        """By constraint, how far it is broken."""
        return tuple(measure.excess for measure in self.measures)

    @property
    def feasible(self) -> bool:
        """Whether all constraints are kept."""
        return max(self.excesses) <= 0


class RungDecided(Event, lane=HYPERPARAMETER_SPECIALIST, wire="rung.decided"):
    """All trials that are left have come to a rung: which of them go on, the best first, and which do not."""

    rung: int
    epochs: int
    kept: list[int]
    stopped: list[int]


class MemberCopy(Value):
    """A member of a population leaves its state and goes on as the trial `number`, from a step of a better one's trial.

    `parameters` are those that it has from there on; the genesis of its new session names step, digest and changes.
    """

    member: int
    number: int
    trial: int
    session: str
    step: int
    parameters: dict[str, JsonValue]


class GenerationDecided(Event, lane=HYPERPARAMETER_SPECIALIST, wire="generation.decided"):
    """All members of a population have come to the end of a generation: which trials go on, the best first, which stop,
    and what the members go on as whose trials stop."""

    generation: int
    epochs: int
    kept: list[int]
    stopped: list[int]
    copies: list[MemberCopy]


class LineageStage(Value):
    """A stretch of the training of which a member's state is the end: a trial from a step on, up to the next one's."""

    number: int
    session: str
    step: int
    parameters: dict[str, JsonValue]


class LineageTraced(Event, lane=HYPERPARAMETER_SPECIALIST, wire="lineage.traced"):
    """How the best member of a population came to its state: the schedule of its parameters, from the beginning on."""

    stages: list[LineageStage]


class SearchLimited(
    Event,
    lane=HYPERPARAMETER_SPECIALIST,
    wire="search.limited",
    says="no further trial begins: {seconds:g} s have passed since the search was requested",
):
    """The search's time is over: no further trial begins, and those that have begun go on to their end."""

    seconds: float


class FrontTrial(Value):
    """A trial than which no other is better in all objectives: its value of each, by metric; with weights the one
    number that is made of them, less is better."""

    number: int
    session: str
    values: dict[str, Exact]
    score: Exact | None = None


class SearchCompleted(Event, lane=HYPERPARAMETER_SPECIALIST, wire="search.completed", upcasts=[unchanged, unchanged]):
    """The search is over; the best trial and what it used.

    Since version 3 `front` names the trials than which no other is better, where there are several objectives. Without
    weights none of them is the best.
    """

    trials: int
    best_number: int | None
    best_session: str | None
    best_value: Exact | None
    best_parameters: dict[str, JsonValue]
    front: list[FrontTrial] = Field(default_factory=list)


class SearchFailed(
    Event,
    lane=HYPERPARAMETER_SPECIALIST,
    wire="search.failed",
    says="search failed: {message} {cure}",
    upcasts=[unchanged],
):
    """The search cannot go on.

    Since version 2 it says what it is about: values that no training can have (`hyperparameter`), what there was not
    (`resource`), or trainings that came to nothing (`convergence`); and how many trials ended in which state.
    """

    message: str
    cure: str = ""
    type: ProblemType = ""
    states: dict[str, int] = Field(default_factory=dict)


class SearchCancelled(
    Event,
    lane=HYPERPARAMETER_SPECIALIST,
    wire="search.cancelled",
    says="search cancelled after {trials:trial}: {reason}",
):
    """A person wanted no more of it; what had been found by then stays found."""

    reason: str
    trials: int
    best_session: str | None = None


@dataclass(frozen=True)
class SearchState(KindState):
    """A search, or a range test, as of one event."""

    trials: tuple[TrialStarted, ...] = ()
    finished: tuple[TrialFinished, ...] = ()
    suggested: LearningRateSuggested | None = None
    paused: tuple[TrialPaused, ...] = ()
    rungs: tuple[RungDecided, ...] = ()
    measured: tuple[TrialMeasured, ...] = ()
    generations: tuple[GenerationDecided, ...] = ()
    lineage: LineageTraced | None = None
    limited: bool = False
    """Whether its time is over."""


def _state_after_failure(session: SessionState, failed: SearchFailed) -> Ended:
    """So a cancelled search was told before there was an event for it."""
    return "cancelled" if failed.message.startswith("cancelled: ") else "failed"


SEARCH = Kind(
    "search",
    SearchState,
    carriers=(Carrier(HYPERPARAMETER_SPECIALIST),),
    ends={SearchCompleted: "completed", SearchCancelled: "cancelled", SearchFailed: _state_after_failure},
    heeds=(CancelRequested,),
    begets=("trial", "fork"),
    reported=True,
    folds={
        TrialStarted: lambda s, e, f: having(s, trials=(*s.trials, e)),
        TrialFinished: lambda s, e, f: having(s, finished=(*s.finished, e)),
        TrialPaused: lambda s, e, f: having(s, paused=(*s.paused, e)),
        TrialMeasured: lambda s, e, f: having(s, measured=(*s.measured, e)),
        RungDecided: lambda s, e, f: having(s, rungs=(*s.rungs, e)),
        GenerationDecided: lambda s, e, f: having(s, generations=(*s.generations, e)),
        LineageTraced: lambda s, e, f: having(s, lineage=e),
        SearchLimited: lambda s, e, f: having(s, limited=True),
        LearningRateSuggested: lambda s, e, f: having(s, suggested=e),
    },
)
