"""Half a cosine down."""

from __future__ import annotations

import math

from contracts.request.schedule import Cosine
from runtime.engine.kinds import Costs, Scale, schedules


@schedules.part(Cosine)
def build(options: Cosine, total: int, costs: Costs) -> Scale:
    """From 1 at step 0 to `floor` when training ends."""
    floor = options.floor

    def scale(step: int) -> float:
        share = 0.5 * (1.0 + math.cos(math.pi * step / total))
        return floor + (1.0 - floor) * share

    return scale
