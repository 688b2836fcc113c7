"""What has become of a trial, read from the log of its session: that it waits at a rung, or what it came to."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import mean

from agents.hyperparameter_specialist.progress import SearchProgress
from contracts.data_manager import DatasetRejected
from contracts.hyperparameter_specialist import SeedResult, TrialFinished, TrialPaused
from contracts.request.objectives import RECORDED
from contracts.request.search import Search
from contracts.trainer import AttemptEnded, ControlEvaluated, training_seconds
from runtime.log.session_log import SessionLog


def paused(progress: SearchProgress, number: int, log: SessionLog) -> TrialPaused | None:
    """The event for a trial that waits at the rung that it was on its way to; None while it does not."""
    training, rung, search = log.state.training, progress.rung(number), progress.search
    if training.claim is None or training.pause is None or training.pause.by != "plan":
        return None
    resolved = training.claim.resolved
    epochs = training.pause.step * resolved["batch"] * resolved["accumulate"] // resolved["rows"]
    if rung >= len(search.rungs) or epochs < search.rungs[rung]:
        return None

    def evaluation(until: int) -> ControlEvaluated | None:
        return next((seen for seen in reversed(training.evaluations) if seen.epoch <= until), None)

    after = search.rungs[rung]
    last, earlier = evaluation(after), evaluation(after // 2)
    return TrialPaused(
        number=number,
        rung=rung,
        epochs=after,
        value=last.values.get(search.metric) if last else None,
        earlier=earlier.values.get(search.metric) if earlier else None,
        values=_values(search, log, last),
        earlier_values={name: value for name, value in _values(search, log, earlier).items() if name not in RECORDED},
    )


def finished(progress: SearchProgress, number: int, log: SessionLog) -> TrialFinished:
    """The event for a trial whose session has its outcome: its best finite value, if it completed; of other
    objectives what they were at that evaluation, for these are the weights that are kept."""
    trial, search = log.state, progress.search
    rejected = isinstance(trial.outcome, DatasetRejected)
    state: str = "rejected" if rejected else trial.kind.state_at_end(trial)
    if state == "cancelled" and number in progress.stopped:
        state = "stopped"
    best = trial.training.best if state == "completed" else None
    value = best.values.get(search.metric) if best else None
    evaluations = trial.training.evaluations
    return TrialFinished(
        number=number,
        session=trial.id,
        state=state,
        value=value if value is not None and math.isfinite(value) else None,
        epochs=evaluations[-1].epoch if evaluations else 0,
        values=_values(search, log, best),
    )


def _values(search: Search, log: SessionLog, evaluation: ControlEvaluated | None) -> dict[str, float]:
    """What the log of a trial tells of each objective; nothing where there are none, or without an evaluation."""
    if evaluation is None or not search.objectives:
        return {}
    training, newest = log.state.training, log.state.training.path_checkpoints()
    told = dict(evaluation.values)
    told["epochs"] = float(training.evaluations[-1].epoch)
    if training.claim:
        told["parameters"] = float(training.claim.resolved["parameters"])
    if newest:
        told["bytes"] = float(newest[-1].written.bytes)
    # An attempt whose process was killed tells nothing; what it had trained is trained, and told, again.
    ended = (fact.event for fact in log.telling((AttemptEnded,)))
    told["seconds"] = sum(training_seconds(event.seconds) for event in ended if isinstance(event, AttemptEnded))
    wanted = (objective.metric for objective in search.objectives)
    return {name: told[name] for name in wanted if name in told and math.isfinite(told[name])}


def paused_with_seeds(progress: SearchProgress, number: int, logs: Sequence[SessionLog]) -> TrialPaused | None:
    """The event for a trial all of whose seeds wait at the rung, but for those that have ended; None while one trains,
    and once none waits."""
    if len(logs) == 1:
        return paused(progress, number, logs[0])
    waits = [waiting for log in logs if (waiting := paused(progress, number, log)) is not None]
    ends = [finished(progress, number, log) for log in logs if log.state.outcome is not None]
    if not waits or len(waits) + len(ends) < len(logs):
        return None
    seeds: list[TrialPaused | TrialFinished] = [*waits, *ends]
    earlier = _means([*(each.earlier_values for each in waits), *(each.values for each in ends)])
    return waits[0].model_copy(
        update={
            "value": _mean([each.value for each in seeds]),
            "earlier": _mean([*(each.earlier for each in waits), *(each.value for each in ends)]),
            "values": _means([each.values for each in seeds]),
            "earlier_values": {name: value for name, value in earlier.items() if name not in RECORDED},
        }
    )


def finished_with_seeds(progress: SearchProgress, number: int, logs: Sequence[SessionLog]) -> TrialFinished:
    """The event for a trial whose sessions all have their outcome: the means of what it came to with each seed, and
    none where a seed has none, since settings that fail with one of their seeds are not to be chosen for the others."""
    ends, metric = [finished(progress, number, log) for log in logs], progress.search.metric
    if len(ends) == 1:
        return ends[0]
    found = [each.values or ({} if each.value is None else {metric: each.value}) for each in ends]
    means = _means(found)
    # Not `stdev`, which raises where squares are too large for a number.
    spread = {
        name: math.hypot(*((values[name] - value) / math.sqrt(len(found) - 1) for values in found))
        for name, value in means.items()
    }
    return TrialFinished(
        number=number,
        session=ends[0].session,
        state=next((each.state for each in ends if each.state != "completed"), "completed"),
        value=means.get(metric),
        epochs=sum(each.epochs for each in ends),
        values=means if progress.search.objectives else {},
        spread=spread,
        seeds=[
            SeedResult(seed=seed, session=each.session, state=each.state, epochs=each.epochs, values=values)
            for seed, each, values in zip(progress.search.training_seeds, ends, found, strict=True)
        ],
    )


def _means(found: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each value that all have."""
    return {name: mean(each[name] for each in found) for name in found[0] if all(name in each for each in found)}


def _mean(values: Iterable[float | None]) -> float | None:
    """The mean; None where one of them is missing or no number."""
    known = [value if value is not None and math.isfinite(value) else None for value in values]
    return None if None in known else mean(value for value in known if value is not None)
