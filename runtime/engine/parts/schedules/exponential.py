"""The same share less at every step."""

from __future__ import annotations

from contracts.request.schedule import Exponential
from runtime.engine.kinds import Costs, Scale, schedules


@schedules.part(Exponential)
def build(options: Exponential, total: int, costs: Costs) -> Scale:
    """Multiplied by `factor` per `every_steps` steps, smoothly."""
    return lambda step: float(options.factor ** (step / options.every_steps))
