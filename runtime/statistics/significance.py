"""Whether paired differences could be chance, and what is left of that when many are looked at together."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Sequence

from contracts.errors import InvalidInput

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
