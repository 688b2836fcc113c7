"""The progress of a search, read from its session, and the next thing to do. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from agents.hyperparameter_specialist.constraints import no_feasible_trial
from agents.hyperparameter_specialist.halving import decide_rung, rung_score
from contracts.errors import InvalidRequest, ProblemType
from contracts.hyperparameter_specialist import (
    FrontTrial,
    RungDecided,
    SearchCompleted,
    SearchFailed,
    SearchState,
    TrialFinished,
    TrialMeasured,
    TrialPaused,
    TrialStarted,
)
from contracts.request import read_request
from contracts.request.objectives import costs, front_of, ranking, weigh
from contracts.request.search import Search
from contracts.request.space import inside
from contracts.session import SessionState

LARGEST_GP = 150
"""Trials up to which a Gaussian process is worth its time, which grows with their cube."""
MOST_OF_GP = 2
"""Objectives without weights up to which it is."""


@dataclass(frozen=True, slots=True)
class Past:
    """One earlier trial as a sampler sees it; `value` is None unless the state is complete.

    Where a front is sought, it has `values` instead, one for each objective. `excesses` says by what share of each
    constraint's limit the trial is beyond it; at most 0 where it is not.
    """

    parameters: Mapping[str, object]
    state: Literal["complete", "running", "failed"]
    value: float | None = None
    values: Sequence[float] = ()
    excesses: Sequence[float] = ()


@dataclass(frozen=True)
class SearchProgress:
    """The trials of one search so far, by number; numbers are given in order from 0."""

    search: Search
    started: Mapping[int, TrialStarted]
    finished: Mapping[int, TrialFinished]
    limited: bool = False
    """Whether its time is over, as its log says."""
    paused: Mapping[int, Sequence[TrialPaused]] = field(default_factory=dict)
    """By trial, where it has waited, rung after rung."""
    decided: Sequence[RungDecided] = ()
    measured: Mapping[int, TrialMeasured] = field(default_factory=dict)
    """By trial that has completed, what it comes to by the constraints; empty where there are none."""

    @classmethod
    def of(cls, session: SessionState, search: Search) -> SearchProgress:
        """As of one moment of the search's session."""
        state = SearchState.of(session)
        started = {trial.number: trial for trial in state.trials}
        finished = {trial.number: trial for trial in state.finished}
        paused: dict[int, list[TrialPaused]] = {}
        for pause in state.paused:
            paused.setdefault(pause.number, []).append(pause)
        measured = {told.number: told for told in state.measured}
        return cls(search, started, finished, state.limited, paused, state.rungs, measured)

    @property
    def total(self) -> int:
        """How many trials there will be; a grid may have fewer than were asked for."""
        size = self.search.grid_size if sampler_of(self.search) == "grid" else None
        return self.search.trials if size is None else min(size, self.search.trials)

    @property
    def running(self) -> Mapping[int, TrialStarted]:
        """By number, the trials that were started and have no `trial.finished` yet."""
        return {number: trial for number, trial in self.started.items() if number not in self.finished}

    @cached_property
    def stopped(self) -> frozenset[int]:
        """The trials that were left where they were."""
        return frozenset(number for decision in self.decided for number in decision.stopped)

    def rung(self, number: int) -> int:
        """The rung that a trial is on its way to: one more than it has been kept at."""
        return sum(number in decision.kept for decision in self.decided)

    @property
    def training(self) -> list[int]:
        """The trials that train or are to: those that run, wait for no decision, and were not stopped."""
        going = [number for number in self.running if number not in self.stopped]
        return [number for number in going if len(self.paused.get(number, ())) <= self.rung(number)]

    def rung_decision(self) -> RungDecided | None:
        """Which trials go on, once all that are left wait at the same rung; those that have ended are compared too."""
        left = [number for number in self.running if number not in self.stopped]
        if not left or self.training or self._goes_on():
            return None
        less = self.search.minimizes
        pauses = {number: self.paused[number][-1] for number in left}
        over = {number: each for number, each in self.finished.items() if self.started[number].same_as is None}
        ended = {number: each.value for number, each in over.items() if number not in self.stopped}
        scores = {number: rung_score(value, None, minimizes=less) for number, value in ended.items()}
        scores |= {number: rung_score(at.value, at.earlier, minimizes=less) for number, at in pauses.items()}
        if self.search.objectives:
            found = {number: costs(over[number].values, self.search.objectives) for number in ended}
            found |= {
                number: tuple(
                    rung_score(at.values.get(one.metric), at.earlier_values.get(one.metric), minimizes=one.minimizes)
                    for one in self.search.objectives
                )
                for number, at in pauses.items()
            }
            scores = {number: float(place) for place, number in enumerate(ranking(found, self.search.objectives))}
        kept, stopped = decide_rung(scores, self.search.halving.factor if self.search.halving else 1)
        return RungDecided(
            rung=len(self.decided),
            epochs=max(pause.epochs for pause in pauses.values()),
            kept=[number for number in kept if number in pauses],
            stopped=[number for number in stopped if number in pauses],
        )

    @property
    def complete(self) -> bool:
        """Whether nothing is left to try, or trying is of no use."""
        return not self.running and not self._goes_on()

    def next_number(self) -> int | None:
        """The trial that may begin now: those `parallel` and more before it have ended, or wait at the first rung."""
        number = len(self.started)
        ready = all(self._seen(earlier) is not None for earlier in range(number - self.search.parallel + 1))
        return number if ready and self._goes_on() else None

    def _seen(self, number: int) -> TrialPaused | TrialFinished | None:
        """What a later trial may know of this one: what it came to at the first rung, or at its end before that; of one
        that repeats another, what that came to."""
        if (earlier := self.started[number].same_as if number in self.started else None) is not None:
            number = earlier
        return self.paused[number][0] if number in self.paused else self.finished.get(number)

    def _goes_on(self) -> bool:
        """Whether a further trial is to begin. Of those that have ended only those count that the next one may see, so
        that how many trials there are does not depend on who ends first."""
        number, most = len(self.started), self.search.epochs
        window = (one for one in range(number - self.search.parallel + 1) if self.started[one].same_as is None)
        seen = [known for earlier in window if (known := self._seen(earlier)) is not None]
        times = len(self.search.training_seeds) or 1
        epochs = (known.epochs * times if isinstance(known, TrialPaused) else known.epochs for known in seen)
        spent = most is not None and sum(epochs) >= most
        rejected = any(trial.state == "rejected" for trial in self.finished.values())
        return number < self.total and not (spent or self.limited or rejected)

    def before(self, number: int) -> list[Past]:
        """The trials that the sampler may see when it chooses a trial; those in its window count as running."""
        past: list[Past] = []
        objectives, ended = self.search.objectives, range(number - self.search.parallel + 1)
        known = {earlier: seen for earlier in ended if (seen := self._seen(earlier)) is not None}
        found = {earlier: costs(seen.values, objectives) for earlier, seen in known.items()} if objectives else {}
        scores = weigh(found, self.search.weights) if self.search.weights else {}
        for earlier in range(number):
            parameters = self.started[earlier].parameters
            if earlier not in ended:
                past.append(Past(parameters, "running"))
                continue
            trained = self.started[earlier].same_as
            told = self.measured.get(earlier if trained is None else trained)
            excesses = told.excesses if told else ()
            if objectives and not self.search.weights:
                each = Past(parameters, "complete", None, found.get(earlier, (math.inf,)), excesses)
            else:
                value = scores.get(earlier) if objectives else known[earlier].value if earlier in known else None
                each = Past(parameters, "complete", value, (), excesses)
            # What could not be measured tells a sampler as little as what has no value.
            figures = (*(each.values or (math.inf if each.value is None else each.value,)), *excesses)
            past.append(each if all(map(math.isfinite, figures)) else Past(parameters, "failed"))
        return past

    @property
    def feasible(self) -> Mapping[int, TrialFinished]:
        """The trials that have ended, but for those that break a constraint."""
        broken = {number for number, told in self.measured.items() if not told.feasible}
        return {number: trial for number, trial in self.finished.items() if number not in broken}

    def front(self) -> list[FrontTrial]:
        """The feasible trials than which no other is better in all objectives; empty where there is one."""
        return front_of(self.feasible.values(), self.search.objectives)

    def best(self) -> TrialFinished | None:
        """The feasible trial with the best value, the earliest of equals; of several objectives that with the best
        score, and none where they have no weights."""
        if self.search.objectives:
            scored = [(trial.score, trial.number) for trial in self.front() if trial.score is not None]
            return self.finished[min(scored)[1]] if scored else None
        sign = 1 if self.search.minimizes else -1
        valued = [(sign * trial.value, trial.number) for trial in self.feasible.values() if trial.value is not None]
        return self.finished[min(valued)[1]] if valued else None

    def conclusion(self) -> SearchCompleted | SearchFailed:
        """The event that ends the search: completed with the best trial, or failed with the reason."""
        best, front = self.best(), self.front()
        if best is None and not front:
            if infeasible := [told for told in self.measured.values() if not told.feasible]:
                return no_feasible_trial(infeasible, self.finished.values())
            return without_value(self.finished.values())
        return SearchCompleted(
            trials=len(self.finished),
            best_number=best.number if best else None,
            best_session=best.session if best else None,
            best_value=best.value if best else None,
            best_parameters=dict(self.started[best.number].parameters) if best else {},
            front=front,
        )


def without_value(finished: Iterable[TrialFinished]) -> SearchFailed:
    """The event that ends a search of which no trial has a value."""
    states = Counter(trial.state for trial in finished)
    kind: ProblemType = "convergence"
    if not states or "rejected" in states:
        kind = "resource"
    elif states.keys() <= {"refused"}:
        kind = "hyperparameter"
    return SearchFailed(
        message=f"none of {states.total()} trials has a value ({', '.join(sorted(states))}).",
        cure="Look at one of them: swarm sessions, swarm show SESSION.",
        type=kind,
        states=dict(sorted(states.items())),
    )


def sampler_of(search: Search) -> Literal["gp", "tpe", "random", "grid"]:
    """The sampler that `auto` means here: everything when that is little, else the best for so many trials."""
    if search.sampler != "auto":
        return search.sampler
    size = search.grid_size
    if size is not None and size <= search.trials:
        return "grid"
    # What a Gaussian process takes to compare fronts grows steeply with the number of objectives.
    few = len(search.objectives) <= MOST_OF_GP or search.weights
    return "gp" if search.trials <= LARGEST_GP and few and not search.conditional else "tpe"


def base_parameters(search: Search) -> dict[str, Any] | None:
    """The base's own values, which are tried first; None when one of them lies outside the space."""
    try:
        resolved = read_request(search.trial(0, {})).resolved()
    except InvalidRequest:
        return None
    values = search.parameters(resolved)
    return values if all(inside(search.space[path], value) for path, value in values.items()) else None
