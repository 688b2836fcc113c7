"""The progress of a search, read from its session, and the next thing to do. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from contracts.data_manager import DatasetRejected
from contracts.errors import InvalidRequest
from contracts.hyperparameter_specialist import SearchCompleted, SearchFailed, SearchState, TrialFinished, TrialStarted
from contracts.request import read_request
from contracts.request.search import Choice, Interval, Search, Wholes
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

    @classmethod
    def of(cls, session: SessionState, search: Search) -> SearchProgress:
        """As of one moment of the search's session."""
        state = SearchState.of(session)
        started = {trial.number: trial for trial in state.trials}
        return cls(search, started, {trial.number: trial for trial in state.finished})

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
        return len(self.finished) >= self.total or any(trial.state == "rejected" for trial in self.finished.values())

    def next_number(self) -> int | None:
        """The trial that may begin now: those `parallel` and more before it have ended."""
        number = len(self.started)
        ready = all(earlier in self.finished for earlier in range(number - self.search.parallel + 1))
        return number if number < self.total and ready and not self.complete else None

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
            states = sorted({trial.state for trial in self.finished.values()})
            return SearchFailed(
                message=f"none of {len(self.finished)} trials has a value ({', '.join(states)}).",
                cure="Look at one of them: swarm sessions, swarm show SESSION.",
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
    return "gp" if search.trials <= LARGEST_GP else "tpe"


def finished(number: int, trial: SessionState, metric: str) -> TrialFinished:
    """The event for a trial whose session has ended: its best finite value of the metric, if it completed."""
    state = "rejected" if isinstance(trial.outcome, DatasetRejected) else trial.state
    best = trial.training.best.values.get(metric) if trial.training.best and state == "completed" else None
    value = best if best is not None and math.isfinite(best) else None
    return TrialFinished(number=number, session=trial.id, state=state, value=value)


def base_parameters(search: Search) -> dict[str, Any] | None:
    """The base's own values, which are tried first; None when one of them lies outside the space."""
    try:
        resolved = read_request(search.trial(0, {})).resolved()
    except InvalidRequest:
        return None
    values = {path: value_at(resolved, path) for path in search.space}
    return values if all(_inside(search.space[path], value) for path, value in values.items()) else None


def value_at(request: Any, path: str) -> Any:
    """The value at a dotted path; None where there is nothing."""
    for key in path.split("."):
        if isinstance(request, Mapping):
            request = request.get(key)
        elif isinstance(request, list) and key.isdigit() and int(key) < len(request):
            request = request[int(key)]
        else:
            return None
    return request


def _inside(domain: Interval | Wholes | Choice, value: Any) -> bool:
    if isinstance(domain, Choice):
        return value in domain.options
    if not isinstance(value, int | float) or isinstance(value, bool) or not domain.low <= value <= domain.high:
        return False
    return isinstance(domain, Interval) or (isinstance(value, int) and (value - domain.low) % domain.step == 0)
