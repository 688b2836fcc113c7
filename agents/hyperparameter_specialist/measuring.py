"""What trials come to by the constraints of their search, each as an event.

It is told before anything follows from it: which trial is best and what a sampler knows depend on the log alone,
although no two measurements of a time are the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import mean
from typing import NamedTuple

from contracts.errors import SwarmError
from contracts.exporter import ModelBenchmarked
from contracts.hyperparameter_specialist import ConstraintMeasure, TrialMeasured
from contracts.request.constraints import ACCURACY, Constraints
from contracts.session import SessionState
from runtime.home.workloads import Workloads
from runtime.jobs.job import Seal
from runtime.log.session_log import SessionLog
from runtime.model.jobs import RehearsalTask, rehearse
from runtime.node.agent_context import AgentContext

FORMAT = "onnx"
MEGABYTE = 1e6


class Figure(NamedTuple):
    """One figure of a training, the median of so many measurements; or why there is none."""

    value: float | None
    n: int = 1
    missing: str = ""


async def measure_trial(
    context: AgentContext, search: str, number: int, logs: Sequence[SessionLog], constraints: Constraints
) -> TrialMeasured:
    """What a trial that has completed comes to, as the mean over its seeds, whose sessions are sealed.

    Their logs tell all but the memory: that a child tries, with the first seed, since it is the same with each.
    """
    measures = []
    for name, limit in constraints.limits.items():
        if name == "max_memory_mb":
            figures = [await _memory(context, search, logs[0].state)]
        else:
            figures = [_recorded(name, log) for log in logs]
        values = [one.value for one in figures if one.value is not None and math.isfinite(one.value)]
        whole = len(values) == len(figures)
        measure = {
            "constraint": name,
            "limit": limit,
            "value": mean(values) if whole else None,
            "n": sum(one.n for one in figures) if whole else 0,
            "missing": "" if whole else next(one.missing for one in figures if one.value not in values),
        }
        measures.append(ConstraintMeasure.model_validate(measure))
    return TrialMeasured(number=number, session=logs[0].id, measures=measures)


def _recorded(constraint: str, log: SessionLog) -> Figure:
    """What the log of a training tells by a constraint."""
    training = log.state.training
    if constraint == "min_accuracy":
        value = training.best.values.get(ACCURACY) if training.best else None
        return Figure(value, missing=f"its best evaluation has no {ACCURACY}")
    refused = (one.message for one in training.refusals if (one.format, one.quantize) == (FORMAT, ""))
    missing = next(refused, "it was not exported")
    if constraint == "max_size_mb":
        sizes = (file.bytes for _, file in training.exports if (file.format, file.quantize) == (FORMAT, ""))
        bytes = next(sizes, None)
        return Figure(None if bytes is None else bytes / MEGABYTE, missing=missing)
    for fact in log.telling((ModelBenchmarked,)):
        timing = fact.event
        if isinstance(timing, ModelBenchmarked) and (timing.format, timing.quantize, timing.batch) == (FORMAT, "", 1):
            return Figure(timing.median_ms, timing.runs)
    return Figure(None, missing=missing)


async def _memory(context: AgentContext, search: str, trial: SessionState) -> Figure:
    """The megabytes at the peak of a process that takes one step of the trial's plan, or why nobody knows them."""
    claim, dataset = trial.training.claim, trial.training.dataset
    if claim is None or dataset is None:
        return Figure(None, missing="it was never claimed")
    resolved = claim.resolved
    try:
        task = RehearsalTask(
            plan={"request": trial.request, "resolved": resolved, "changes": []},
            seal=Seal(resolved["threads"], resolved["profile"]),
            device=resolved["device"],
            dataset=context.blobs.root / "datasets" / dataset.root,
            blobs=context.blobs.root,
            initial=claim.initial,
            workloads=Workloads(context.home.root).needed(trial.request),
        )
        log = context.home.session(search) / "search.log"
        rehearsed = await context.children.run(rehearse, task, session=search, log=log)
    except SwarmError as error:
        return Figure(None, missing=error.message)
    return Figure(rehearsed.memory_bytes / MEGABYTE)
