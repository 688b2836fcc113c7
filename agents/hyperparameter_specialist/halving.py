"""Which trials of a search go on: at each rung of epochs the better part of those that are left. Pure.

A trial that does not go on is frozen where it is. What decides is what was recorded: the last value, and how it changed
since half the epochs, for what rises late is behind at first.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

SLOPE = 1.0
"""How much of the change since half the epochs is added to the last value."""


class RungDecision(NamedTuple):
    """The trials that go on, the best first, and those that do not."""

    kept: tuple[int, ...]
    stopped: tuple[int, ...]


def rung_score(value: float | None, earlier: float | None, *, minimizes: bool) -> float:
    """What a trial is ranked by, less is better: its value as it would be if it went on as it did."""
    if value is None or not math.isfinite(value):
        return math.inf
    slope = value - earlier if earlier is not None and math.isfinite(earlier) else 0.0
    score = value + SLOPE * slope
    return score if minimizes else -score


def decide_rung(scores: Mapping[int, float], factor: int) -> RungDecision:
    """Keep one in `factor` of the trials, rounded up; of equals those that began earlier."""
    ranked = sorted(scores, key=lambda number: (scores[number], number))
    most = math.ceil(len(ranked) / factor)
    return RungDecision(tuple(ranked[:most]), tuple(ranked[most:]))
