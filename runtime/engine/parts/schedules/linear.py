"""A straight line down."""

from __future__ import annotations

from contracts.request.schedule import LinearDecay
from runtime.engine.kinds import Costs, Scale, schedules


@schedules.part(LinearDecay)
def build(options: LinearDecay, total: int, costs: Costs) -> Scale:
    """From 1 at step 0 to `floor` when training ends."""
    return lambda step: 1.0 - (1.0 - options.floor) * step / total
