"""How long an answer takes in this process, one caller after the other. Figures of a machine, not of the model."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

Columns = Mapping[str, np.ndarray]
Ask = Callable[[Columns], np.ndarray]

RUNS = 200
_WARM = 10
_SECONDS = 0.5


def timed(asks: Sequence[Ask], columns: Columns) -> list[dict[str, Any]]:
    """Median and p95 in milliseconds of each; they take turns, so that a busy moment hits all of them."""
    taken: list[list[float]] = [[] for _ in asks]
    for _ in range(_WARM):
        for ask in asks:
            ask(columns)
    end = time.perf_counter() + _SECONDS
    while len(taken[0]) < RUNS and (time.perf_counter() < end or len(taken[0]) < _WARM):
        for ask, times in zip(asks, taken, strict=True):
            began = time.perf_counter()
            ask(columns)
            times.append((time.perf_counter() - began) * 1000)
    return [
        {"median_ms": float(np.median(times)), "p95_ms": float(np.percentile(times, 95)), "runs": len(times)}
        for times in taken
    ]
