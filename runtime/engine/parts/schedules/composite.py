"""Schedules one after another."""

from __future__ import annotations

import math
from bisect import bisect_right

from contracts.request.schedule import Composite
from runtime.engine.course import course, since
from runtime.engine.kinds import Costs, Scale, schedules


@schedules.part(Composite)
def build(options: Composite, total: int, costs: Costs) -> Scale:
    """Each phase counts its own steps and its own evaluations; the last one goes on to the end."""
    shares = [phase.share for phase in options.phases]
    ends = [round(total * math.fsum(shares[: at + 1]) / math.fsum(shares)) for at in range(len(shares))]
    starts = [0, *ends[:-1]]
    spans = zip(options.phases, starts, ends, strict=True)
    parts = [course(phase.schedule, max(1, end - start), since(costs, start)) for phase, start, end in spans]

    def scale(step: int) -> float:
        at = min(bisect_right(ends, step), len(parts) - 1)
        return options.phases[at].level * parts[at](step - starts[at])

    return scale
