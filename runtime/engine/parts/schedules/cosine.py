"""Half a cosine down."""

from __future__ import annotations

import math

from contracts.request.schedule import Cosine
from runtime.engine.kinds import schedules


@schedules.part(Cosine)
def scale(options: Cosine, step: int, total: int) -> float:
    """From 1 at step 0 to `floor` when training ends."""
    share = 0.5 * (1.0 + math.cos(math.pi * step / total))
    return options.floor + (1.0 - options.floor) * share
