"""Lowers the rate when the control metric stops improving: a pure fold over evaluations, so a resume rebuilds it."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator

from contracts.request.schedule import Plateau
from runtime.engine.kinds import Costs, Scale, schedules


@schedules.part(Plateau)
def build(options: Plateau, total: int, costs: Costs) -> Scale:
    """A step sees the evaluations up to it, none after."""
    steps, scales = [step for step, _ in costs], [1.0, *_folded(options, costs)]
    return lambda step: scales[bisect_right(steps, step)]


def _folded(options: Plateau, costs: Costs) -> Iterator[float]:
    """The scale that holds after each evaluation."""
    best, waited, resting, scale = math.inf, 0, 0, 1.0
    for _, cost in costs:
        better = cost < best - options.min_delta
        best, waited = (cost, 0) if better else (best, waited + 1)
        if resting:
            resting, waited = resting - 1, 0
        if waited > options.patience:
            scale, resting, waited = max(scale * options.factor, options.floor), options.rest, 0
        yield scale
