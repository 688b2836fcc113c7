"""Up and down in straight lines, over and over."""

from __future__ import annotations

from contracts.request.schedule import Cyclic
from runtime.engine.kinds import Costs, Scale, schedules


@schedules.part(Cyclic)
def build(options: Cyclic, total: int, costs: Costs) -> Scale:
    """From `floor` to 1 and back; the height above `floor` shrinks from cycle to cycle."""
    up = options.up_steps
    down = up if options.down_steps == "auto" else options.down_steps

    def scale(step: int) -> float:
        cycle, at = divmod(step, up + down)
        height = at / up if at <= up else 1.0 - (at - up) / down
        return float(options.floor + (1.0 - options.floor) * height * options.shrink**cycle)

    return scale
