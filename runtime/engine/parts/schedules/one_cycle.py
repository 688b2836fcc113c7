"""Up once, then down to nearly nothing."""

from __future__ import annotations

import math

from contracts.request.schedule import OneCycle
from runtime.engine.kinds import Costs, Scale, schedules


@schedules.part(OneCycle)
def build(options: OneCycle, total: int, costs: Costs) -> Scale:
    """The highest point is where torch's `OneCycleLR` has it; the last step is at `floor`."""
    between = _cosine if options.shape == "cosine" else _line
    peak, end = options.rise * total - 1, total - 1

    def scale(step: int) -> float:
        if step <= peak:
            return between(options.start, 1.0, step / peak if peak > 0 else 1.0)
        return between(1.0, options.floor, min(1.0, (step - peak) / (end - peak) if end > peak else 1.0))

    return scale


def _cosine(first: float, last: float, share: float) -> float:
    return last + (first - last) / 2 * (1 + math.cos(math.pi * share))


def _line(first: float, last: float, share: float) -> float:
    return first + (last - first) * share
