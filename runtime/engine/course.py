"""A schedule with its warm-up, as one function of the step. What each schedule does is in its part."""

from __future__ import annotations

from contracts.request.schedule import Warmed
from runtime.engine import kinds
from runtime.engine.kinds import Costs, Scale


def course(options: Warmed, total: int, costs: Costs = ()) -> Scale:
    """The share of the learning rate at every step of `total`, given the control metric's course so far."""
    warm = options.warmup_steps
    scale = kinds.schedules.of(options)(options, max(1, total - warm), since(costs, warm))
    if not warm:
        return scale
    first = scale(0)
    return lambda step: first * ((step + 1) / (warm + 1)) if step < warm else scale(step - warm)


def since(costs: Costs, start: int) -> Costs:
    """What was evaluated after a step, counted from it."""
    return [(step - start, cost) for step, cost in costs if step > start]
