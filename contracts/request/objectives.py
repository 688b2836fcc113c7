"""What the trials of a search are judged by when it is more than one figure, and which of them are better. Pure.

Trials are compared by costs: one number per objective, less is better, infinite where a trial has no finite value.
With weights one number is made of them; without, what counts is that no other trial is at least as good in everything
and better in something.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import inf, isfinite
from operator import le
from statistics import median_low
from typing import Literal

from pydantic import Field, field_validator

from contracts.errors import Problem
from contracts.hyperparameter_specialist import FrontTrial, TrialFinished
from contracts.request.section import Real, Section, refused
from contracts.request.training import is_minimized

RECORDED = ("parameters", "epochs", "bytes", "seconds")
"""What the log tells of any trial beside its evaluations, and of which less is better."""

Costs = tuple[float, ...]


class Objective(Section):
    """One figure of a trial: a metric of its validation (`val_loss`, `val_accuracy`), or what it took.

    `parameters` is the number of its parameters, `epochs` that of the epochs it was trained for, `bytes` the size of
    its newest checkpoint, and `seconds` the time in which rows were trained on, as the log has it. All objectives have
    a weight, or none has.
    """

    metric: str = Field(max_length=64)
    direction: Literal["auto", "minimize", "maximize"] = "auto"
    weight: Real | None = Field(None, gt=0, le=1e6)

    @field_validator("metric")
    @classmethod
    def _is_recorded(cls, metric: str) -> str:
        if metric not in RECORDED and not (metric.startswith("val_") and metric[4:].isidentifier()):
            cure = f"Write val_loss, val_ and a metric's name, or one of {', '.join(RECORDED)}."
            raise refused(f"{metric!r} is not recorded of a trial", cure)
        return metric

    @property
    def minimizes(self) -> bool:
        """Whether a smaller value is a better one."""
        return (self.direction == "auto" and self.metric in RECORDED) or is_minimized(self.metric, self.direction)


def disagreements(objectives: Sequence[Objective]) -> Iterator[Problem]:
    """What several objectives of a search must agree on and do not."""
    names = [objective.metric for objective in objectives]
    if len(names) == 1:
        yield Problem("objectives", "one objective is no choice between several", "Write `metric` and `direction`.")
    if not any(name.startswith("val_") for name in names):
        yield Problem("objectives", "none of them is a metric of the validation", "Add one, val_loss for instance.")
    for place, objective in enumerate(objectives):
        if objective.metric in names[:place]:
            message = f"{objective.metric!r} is there already"
            yield Problem(f"objectives.{place}.metric", message, "Leave one of them out.")
        if objective.weight is None and any(one.weight for one in objectives):
            yield Problem(
                f"objectives.{place}.weight", "is missing, and others have one", "Give all a weight, or none."
            )


def costs(values: Mapping[str, float], objectives: Sequence[Objective]) -> Costs:
    """The costs of a trial with these values."""
    known = (values.get(objective.metric, inf) for objective in objectives)
    signed = (value if one.minimizes else -value for value, one in zip(known, objectives, strict=True))
    return tuple(cost if isfinite(cost) else inf for cost in signed)


def weigh(found: Mapping[int, Costs], weights: Sequence[float]) -> dict[int, float]:
    """One number for each of some trials, less is better; infinite for those that lack a value.

    Of each objective it takes how far a trial is from the best of them, in units of how far the lower median is (or the
    worst, where half of them are the best), and of these the mean by weight. So no unit of measurement matters, and no
    single trial that is very bad makes all others look alike.
    """
    whole = {number: each for number, each in found.items() if inf not in each}
    total = dict.fromkeys(whole, 0.0)
    for place, weight in enumerate(weights):
        best = min((each[place] for each in whole.values()), default=0.0)
        away = {number: min(each[place] - best, sys.float_info.max) for number, each in whole.items()}
        unit = median_low(away.values()) or max(away.values()) if away else 0.0
        for number, distance in away.items():
            total[number] += weight / sum(weights) * (distance / unit if distance else 0.0)
    return {number: total.get(number, inf) for number in found}


def pareto_front(found: Mapping[int, Costs]) -> list[int]:
    """The trials that lack no value and that no other one dominates, by number; equals stand there together."""
    front: list[int] = []
    # Whatever dominates a trial comes before it in this order, and what is dominated dominates nothing on its own.
    for number in sorted(found, key=lambda number: (found[number], number)):
        mine = found[number]
        others = (found[one] for one in front if found[one] != mine)
        if inf not in mine and not any(all(map(le, other, mine)) for other in others):
            front.append(number)
    return sorted(front)


def front_of(finished: Iterable[TrialFinished], objectives: Sequence[Objective]) -> list[FrontTrial]:
    """The front of these trials, with the score of each where objectives have weights; empty where there are none."""
    trials = {trial.number: trial for trial in finished}
    found = {number: costs(trial.values, objectives) for number, trial in trials.items()}
    weights = [one.weight for one in objectives if one.weight is not None]
    scores = weigh(found, weights) if weights else {}
    return [
        FrontTrial(
            number=number,
            session=trials[number].session,
            values=trials[number].values,
            score=scores.get(number),
        )
        for number in (pareto_front(found) if objectives else ())
    ]


def ranking(found: Mapping[int, Costs], objectives: Sequence[Objective]) -> list[int]:
    """All of these trials, the best first. With weights by `weigh`; without, those of the front come first, then the
    front of the others, and so on, and within a front the order is by `weigh` with equal weights. Of equals the one
    that began earlier comes first, and those that lack a value come last."""
    if weights := [one.weight for one in objectives if one.weight is not None]:
        single = weigh(found, weights)
        return sorted(found, key=lambda number: (single[number], number))
    ranked: list[int] = []
    single, left = weigh(found, [1.0] * len(objectives)), dict(found)
    while front := pareto_front(left):
        ranked += sorted(front, key=lambda number: (single[number], number))
        left = {number: each for number, each in left.items() if number not in front}
    return ranked + sorted(left)
