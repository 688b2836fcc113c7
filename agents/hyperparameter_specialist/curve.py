"""Reads a range test's curve: where the loss falls fastest, and where training breaks. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

SMOOTHING = 0.9
SKIPPED = 5
"""Points at the beginning that say more about the first batches than about the rate."""

BROKEN = 4.0
"""How many times the smallest smoothed loss means divergence."""

FLAT = 1e-3
"""A fall per order of magnitude, as a share of the loss, that is no fall."""

GUARD = 4.0
"""How far below the rate at which training broke a suggestion stays at least."""


@dataclass(frozen=True, slots=True)
class Curve:
    """What a range test shows; rates that training should start from are near `suggestion`."""

    suggestion: float | None
    steepest: float | None
    diverged_at: float | None


def rates(low: float, high: float, steps: int) -> list[float]:
    """`steps` rates from `low` to `high`, each the same factor above the one before."""
    factor = growth(low, high, steps)
    return [low * factor**step for step in range(steps)]


def growth(low: float, high: float, steps: int) -> float:
    """The factor between one rate and the next."""
    return math.exp((math.log(high) - math.log(low)) / (steps - 1))


def smoothed(losses: Sequence[float]) -> list[float]:
    """The exponential mean of the losses, corrected for its beginning at nothing; it ends where they are no numbers."""
    means: list[float] = []
    mean = 0.0
    for count, loss in enumerate(losses, 1):
        if not math.isfinite(loss):
            break
        mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
        means.append(mean / (1 - SMOOTHING**count))
    return means


def broken(losses: Sequence[float]) -> int | None:
    """The place at which training broke: no number any more, or far above the best; None while it holds."""
    smooth = smoothed(losses)
    best = math.inf
    for place, loss in enumerate(smooth):
        best = min(best, loss)
        if place >= SKIPPED and loss - best > (BROKEN - 1) * abs(best) and loss > smooth[0]:
            return place
    return len(smooth) if len(smooth) < len(losses) else None


def read(tried: Sequence[float], losses: Sequence[float]) -> Curve:
    """The rate at which the smoothed loss falls fastest per order of magnitude, kept away from where training broke."""
    end = broken(losses)
    diverged = None if end is None else tried[end]
    smooth = smoothed(losses)[:end]
    slopes = [
        ((smooth[place + 1] - smooth[place - 1]) / math.log(tried[place + 1] / tried[place - 1]), place)
        for place in range(SKIPPED, len(smooth) - 1)
    ]
    slope, place = min(slopes, default=(0.0, 0))
    if slope >= -FLAT * max((abs(loss) for loss in smooth), default=0.0):
        return Curve(None, None, diverged)
    steepest = tried[place]
    guarded = steepest if diverged is None else min(steepest, diverged / GUARD)
    # A training that breaks at once leaves no room below it that was tried.
    return Curve(max(guarded, tried[0]), steepest, diverged)
