"""Sums that do not depend on the order of their terms."""

from __future__ import annotations

import math
from collections.abc import Iterable


def total(terms: Iterable[float]) -> float:
    """The correctly rounded sum; NaN when infinities or NaN are among the terms or it is too large."""
    try:
        return math.fsum(terms)
    except (ValueError, OverflowError):
        return math.nan
