"""What has become of a trial, read from the log of its session: that it waits at a rung, or what it came to."""

from __future__ import annotations

import math

from agents.hyperparameter_specialist.progress import SearchProgress
from contracts.data_manager import DatasetRejected
from contracts.hyperparameter_specialist import TrialFinished, TrialPaused
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
    """The event for a trial whose session has ended: its best finite value of the metric, if it completed; of other
    objectives what they were at that evaluation, for these are the weights that are kept."""
    trial, search = log.state, progress.search
    state: str = "rejected" if isinstance(trial.outcome, DatasetRejected) else trial.state
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
