"""A staircase down."""

from __future__ import annotations

from contracts.request.schedule import Step
from runtime.engine.kinds import schedules


@schedules.part(Step)
def scale(options: Step, step: int, total: int) -> float:
    """Multiplied by `factor` once per `every_steps` steps gone by."""
    return float(options.factor ** (step // options.every_steps))
