"""The progress of a search, read from its session, and the next thing to do. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from contracts.data_manager import DatasetRejected
from contracts.errors import InvalidRequest, ProblemType
from contracts.hyperparameter_specialist import SearchCompleted, SearchFailed, SearchState, TrialFinished, TrialStarted
from contracts.request import read_request
from contracts.request.search import Search, inside, value_at
from contracts.session import SessionState

LARGEST_GP = 200
"""Trials up to which a Gaussian process is worth its time, which grows with their cube."""


@dataclass(frozen=True, slots=True)
class Past:
    """One earlier trial as a sampler sees it; `value` is None unless the state is complete."""

    parameters: Mapping[str, object]
    state: Literal["complete", "running", "failed"]
    value: float | None = None


@dataclass(frozen=True, slots=True)
class SearchProgress:
    """The trials of one search so far, by number; numbers are given in order from 0."""

    search: Search
    started: Mapping[int, TrialStarted]
    finished: Mapping[int, TrialFinished]
    limited: bool = False
    """Whether its time is over, as its log says."""

    @classmethod
    def of(cls, session: SessionState, search: Search) -> SearchProgress:
        """As of one moment of the search's session."""
        state = SearchState.of(session)
        started = {trial.number: trial for trial in state.trials}
        return cls(search, started, {trial.number: trial for trial in state.finished}, state.limited)

    @property
    def total(self) -> int:
        """How many trials there will be; a grid may have fewer than were asked for."""
        size = self.search.grid_size if sampler_of(self.search) == "grid" else None
        return self.search.trials if size is None else min(size, self.search.trials)

    @property
    def running(self) -> Mapping[int, TrialStarted]:
        """By number, the trials that were started and have no `trial.finished` yet."""
        return {number: trial for number, trial in self.started.items() if number not in self.finished}

    @property
    def complete(self) -> bool:
        """Whether nothing is left to try, or trying is of no use."""
        return not self.running and not self._goes_on()

    def next_number(self) -> int | None:
        """The trial that may begin now: those `parallel` and more before it have ended."""
        number = len(self.started)
        ready = all(earlier in self.finished for earlier in range(number - self.search.parallel + 1))
        return number if ready and self._goes_on() else None

    def _goes_on(self) -> bool:
        """Whether a further trial is to begin. Of those that have ended only those count that the next one may see, so
        that how many trials there are does not depend on who ends first."""
        number, most = len(self.started), self.search.epochs
        seen = [self.finished[one] for one in range(number - self.search.parallel + 1) if one in self.finished]
        spent = most is not None and sum(trial.epochs for trial in seen) >= most
        rejected = any(trial.state == "rejected" for trial in self.finished.values())
        return number < self.total and not (spent or self.limited or rejected)

    def before(self, number: int) -> list[Past]:
        """The trials that the sampler may see when it chooses a trial; those in its window count as running."""
        past = []
        for earlier in range(number):
            parameters = self.started[earlier].parameters
            if earlier > number - self.search.parallel:
                past.append(Past(parameters, "running"))
                continue
            value = self.finished[earlier].value
            past.append(Past(parameters, "failed") if value is None else Past(parameters, "complete", value))
        return past

    def best(self) -> TrialFinished | None:
        """The finished trial with the best value, the earliest of equals."""
        sign = 1 if self.search.minimizes else -1
        valued = [(sign * trial.value, trial.number) for trial in self.finished.values() if trial.value is not None]
        return self.finished[min(valued)[1]] if valued else None

    def conclusion(self) -> SearchCompleted | SearchFailed:
        """The event that ends the search: completed with the best trial, or failed with the reason."""
        best = self.best()
        if best is None:
            states = Counter(trial.state for trial in self.finished.values())
            kind: ProblemType = "convergence"
            if not states or "rejected" in states:
                kind = "resource"
            elif states.keys() <= {"refused"}:
                kind = "hyperparameter"
            return SearchFailed(
                message=f"none of {len(self.finished)} trials has a value ({', '.join(sorted(states))}).",
                cure="Look at one of them: swarm sessions, swarm show SESSION.",
                type=kind,
                states=dict(sorted(states.items())),
            )
        return SearchCompleted(
            trials=len(self.finished),
            best_number=best.number,
            best_session=best.session,
            best_value=best.value,
            best_parameters=dict(self.started[best.number].parameters),
        )


def sampler_of(search: Search) -> Literal["gp", "tpe", "random", "grid"]:
    """The sampler that `auto` means here: everything when that is little, else the best for so many trials."""
    if search.sampler != "auto":
        return search.sampler
    size = search.grid_size
    if size is not None and size <= search.trials:
        return "grid"
    return "gp" if search.trials <= LARGEST_GP and not search.conditional else "tpe"


def finished(number: int, trial: SessionState, metric: str) -> TrialFinished:
    """The event for a trial whose session has ended: its best finite value of the metric, if it completed."""
    state = "rejected" if isinstance(trial.outcome, DatasetRejected) else trial.state
    best = trial.training.best.values.get(metric) if trial.training.best and state == "completed" else None
    value = best if best is not None and math.isfinite(best) else None
    evaluations = trial.training.evaluations
    epochs = evaluations[-1].epoch if evaluations else 0
    return TrialFinished(number=number, session=trial.id, state=state, value=value, epochs=epochs)


def base_parameters(search: Search) -> dict[str, Any] | None:
    """The base's own values, which are tried first; None when one of them lies outside the space."""
    try:
        resolved = read_request(search.trial(0, {})).resolved()
    except InvalidRequest:
        return None
    values = parameters_in(resolved, search)
    return values if all(inside(search.space[path], value) for path, value in values.items()) else None


def parameters_in(request: Mapping[str, object], search: Search) -> dict[str, Any]:
    """The parameters of a search that a trial's request has, by path."""
    values: dict[str, Any] = {}
    for path in search.order:
        if search.applies(path, values):
            values[path] = value_at(request, path)
    return {path: values[path] for path in search.space if path in values}
