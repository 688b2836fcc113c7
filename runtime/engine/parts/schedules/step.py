"""A staircase down."""

from __future__ import annotations

from contracts.request.schedule import Step
from runtime.engine.kinds import Costs, Scale, schedules


@schedules.part(Step)
def build(options: Step, total: int, costs: Costs) -> Scale:
    """Multiplied by `factor` once per `every_steps` steps gone by."""
    return lambda step: float(options.factor ** (step // options.every_steps))
