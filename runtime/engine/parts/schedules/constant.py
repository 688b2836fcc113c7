"""The learning rate as it is."""

from __future__ import annotations

from contracts.request.schedule import Constant
from runtime.engine.kinds import Costs, Scale, schedules


@schedules.part(Constant)
def build(options: Constant, total: int, costs: Costs) -> Scale:
    """One, at every step."""
    return lambda step: 1.0
