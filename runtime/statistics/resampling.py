"""How far a figure of a few values can be trusted, and whether paired differences could be chance: by resampling.

A share of a few trials has an interval in closed form.
"""

import itertools
import math
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


def share_of(part: int, whole: int, *, confidence: float = 0.9) -> ConfidenceInterval:
    """A share of so many trials with Wilson's interval (1927), which is right for few trials and for none or all.

    Raises `InvalidInput` for no trials, and for a part that is no part of them.
    """
    if not 0 <= part <= whole or whole < 1:
        raise InvalidInput(f"{part} of {whole} is no share.", cure="Count one trial or more.")
    z = NORMAL.inv_cdf((1 + confidence) / 2)
    share, spread = part / whole, z * z / whole
    middle = (share + spread / 2) / (1 + spread)
    half = math.sqrt(spread * share * (1 - share) + spread * spread / 4) / (1 + spread)
    return ConfidenceInterval(share, max(0.0, middle - half), min(1.0, middle + half))


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


MOST_EXACT = 16
"""Differences of which every way to turn their signs is looked at: 32,768 ways, half of all by symmetry."""


def sign_flip(differences: Sequence[float], *, draws: int = 10_000, seed: int = 1) -> float:
    """The two-sided probability that differences without direction have a sum as far from 0 as these (Fisher 1935).

    Exact for at most `MOST_EXACT` differences; beyond, from so many draws by the seed, in which the differences as they
    are count as one more. Raises `InvalidInput` when there are none, or one is not finite.
    """
    if not differences or not all(map(math.isfinite, differences)):
        message = f"{len(differences)} differences, of which not all are finite, have no sum to judge."
        raise InvalidInput(message if differences else "there are no differences to judge.", cure="Measure again.")
    # Correctly rounded sums: what is equal in exact arithmetic is equal here, so ties count in any order.
    reached = abs(math.fsum(differences))
    if len(differences) <= MOST_EXACT:
        first, *rest = differences
        flipped = itertools.product(*((one, -one) for one in rest))
        hits = sum(abs(math.fsum((first, *one))) >= reached for one in flipped)
        return hits / (1 << len(rest))
    generator = random.Random(seed)  # noqa: S311 - figures, not secrets
    hits = 0
    for _ in range(draws):
        signs = generator.getrandbits(len(differences))
        hits += abs(math.fsum(-one if signs >> at & 1 else one for at, one in enumerate(differences))) >= reached
    return (1 + hits) / (1 + draws)


def holm(probabilities: Sequence[float]) -> list[float]:
    """Each probability as it is to be read when all of them are looked at together (Holm 1979), in their order.

    Whoever calls those at most `a` no chance is wrong about any of them with a probability of at most `a`.
    """
    if not all(0 <= one <= 1 for one in probabilities):
        raise InvalidInput(f"{list(probabilities)} are not all probabilities.", cure="Give numbers from 0 to 1.")
    order = sorted(range(len(probabilities)), key=probabilities.__getitem__)
    scaled = [min(1.0, (len(order) - rank) * probabilities[at]) for rank, at in enumerate(order)]
    raised = dict(zip(order, itertools.accumulate(scaled, max), strict=True))
    return [raised[at] for at in range(len(order))]
