"""What two forks show about an intervention: who did better, where they part, what came out again. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal

from contracts.diagnostician import InterventionProven, ProofForked
from contracts.request.training import EarlyStopping, less_is_better
from contracts.session import SessionState
from contracts.trainer import InterventionApplied, TrainingCompleted, WindowRecorded
from runtime.log.session_log import SessionLog
from runtime.views.diff import windows

Verdict = Literal["better", "worse", "no difference"]
Key = tuple[int, int, int]


def proven(
    parent: SessionLog, applied: InterventionApplied, forked: ProofForked, with_it: SessionLog, without_it: SessionLog
) -> InterventionProven:
    """Everything that the logs of the three say."""
    rules = EarlyStopping.model_validate(parent.state.request["early_stopping"])
    values = [best(one.state, rules.metric) for one in (with_it, without_it)]
    completed = [isinstance(one.state.outcome, TrainingCompleted) for one in (with_it, without_it)]
    parted = windows(with_it, without_it)["parted"]
    again, differing = _held(parent, (with_it, without_it))
    superseded = [one for one in again if not parent.state.on_path(one[0], one[2])]
    return InterventionProven(
        intervention=forked.intervention,
        step=applied.step,
        with_it=with_it.id,
        without_it=without_it.id,
        metric=rules.metric,
        with_value=values[0],
        without_value=values[1],
        verdict=_verdict(completed, values, rules),
        parted=None if parted is None else parted["step"] or parted["first"] + 1,
        reproduced=len(again),
        superseded=len(superseded),
        differing=len(differing),
    )


def best(session: SessionState, metric: str) -> float | None:
    """The best value of the control metric on a path; None when none was finite."""
    values = [seen.values[metric] for seen in session.evaluations if math.isfinite(seen.values[metric])]
    if not values:
        return None
    return min(values) if less_is_better(metric) else max(values)


def _verdict(completed: list[bool], values: list[float | None], rules: EarlyStopping) -> Verdict:
    """Who failed has lost against who completed; else the metric decides, by more than `min_delta`."""
    if completed[0] != completed[1]:
        return "better" if completed[0] else "worse"
    ours, theirs = values
    if ours is None or theirs is None:
        return "no difference" if ours is theirs else "worse" if ours is None else "better"
    gain = theirs - ours if less_is_better(rules.metric) else ours - theirs
    if abs(gain) <= rules.min_delta:
        return "no difference"
    return "better" if gain > 0 else "worse"


def _held(parent: SessionLog, forks: Iterable[SessionLog]) -> tuple[list[Key], list[Key]]:
    """The windows of the parent that a fork computed again, and those that came out otherwise, each once."""
    recorded = {_key(one): one for one in _windows(parent)}
    pairs = [(key, recorded[key], one) for fork in forks for one in _windows(fork) if (key := _key(one)) in recorded]
    # JSON text compares exact floats by their bits, NaN included.
    differing = {key for key, said, found in pairs if said.model_dump_json() != found.model_dump_json()}
    return sorted({key for key, _, _ in pairs} - differing), sorted(differing)


def _windows(history: SessionLog) -> list[WindowRecorded]:
    return [fact.event for fact in history.facts if isinstance(fact.event, WindowRecorded)]


def _key(window: WindowRecorded) -> Key:
    return window.segment, window.first, window.last
