"""A straight line down."""

from __future__ import annotations

from contracts.request.schedule import LinearDecay
from runtime.engine.kinds import schedules


@schedules.part(LinearDecay)
def scale(options: LinearDecay, step: int, total: int) -> float:
    """From 1 at step 0 to `floor` when training ends."""
    return 1.0 - (1.0 - options.floor) * step / total
