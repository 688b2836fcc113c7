"""How far a figure that was computed from a few values can be trusted, by drawing from these values again."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import NamedTuple

from contracts.errors import InvalidInput

Statistic = Callable[[Sequence[float]], float]
"""A figure of values in any order, such as their median."""

NORMAL = NormalDist()


class ConfidenceInterval(NamedTuple):
    """The figure of the values themselves, and where it lies with the confidence that was asked for."""

    estimate: float
    low: float
    high: float


def bootstrap(
    values: Sequence[float], statistic: Statistic, *, confidence: float = 0.9, draws: int = 10_000, seed: int = 1
) -> ConfidenceInterval:
    """The bias-corrected and accelerated bootstrap interval (Efron 1987); the same values and seed give the same one.

    Raises `InvalidInput` for less than two values, and for a confidence or a number of draws that make no sense.
    """
    if len(values) < 2:
        raise InvalidInput(f"there is no interval for {len(values)} values.", cure="Measure two or more.")
    if not 0 < confidence < 1 or draws < 1:
        message = f"no interval holds a share of {confidence} by {draws} draws."
        raise InvalidInput(message, cure="Give a confidence between 0 and 1, and draw 1 time or more.")
    estimate, generator = statistic(values), random.Random(seed)  # noqa: S311 - figures, not secrets
    drawn = sorted(statistic(generator.choices(values, k=len(values))) for _ in range(draws))
    # How many draws lie below the estimate; equal ones count half. Never none or all, where the normal has no quantile.
    below = sum((one < estimate) + (one <= estimate) for one in drawn) / 2
    bias = NORMAL.inv_cdf(min(max(below, 0.5), draws - 0.5) / draws)
    acceleration = jackknife_acceleration(values, statistic)

    def bound(share: float) -> float:
        moved = bias + NORMAL.inv_cdf(share)
        return _quantile(drawn, NORMAL.cdf(bias + moved / (1 - acceleration * moved)))

    outside = (1 - confidence) / 2
    return ConfidenceInterval(estimate, bound(outside), bound(1 - outside))


def jackknife_acceleration(values: Sequence[float], statistic: Statistic) -> float:
    """How fast a figure's spread changes with the figure, from leaving out one value after another; 0 for no spread."""
    without = [statistic([*values[:at], *values[at + 1 :]]) for at in range(len(values))]
    mean = sum(without) / len(without)
    apart = [mean - one for one in without]
    spread = sum(one**2 for one in apart)
    return sum(one**3 for one in apart) / (6 * spread**1.5) if spread else 0.0


def _quantile(ordered: Sequence[float], share: float) -> float:
    """The value below which a share of them lies, between two neighbours where it falls there."""
    place = share * (len(ordered) - 1)
    at = min(int(place), len(ordered) - 2) if len(ordered) > 1 else 0
    upper = ordered[min(at + 1, len(ordered) - 1)]
    return ordered[at] + (upper - ordered[at]) * (place - at)
