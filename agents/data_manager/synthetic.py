"""Rows made for rare classes, each between two rows of its class: SMOTE, by keyed draws, the same on every machine.

Distances are sums of squared whole numbers, so no order of adding them changes which neighbour is the nearest.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from agents.data_manager.scratch import CHUNK, portions
from agents.data_manager.source import unusable
from contracts.request.data import Synthetic
from runtime.engine.random_keys import mix, spread

STREAM = 0x534D4F5445
POOL = 4096
"""At most so many rows of a class are parents."""

_LEVELS = 1023
_NEIGHBOUR, _SHARE = 1, 2
_POOL_BYTES = 64 << 20
_FRACTIONS = 1 << 16
_ROWS_HELD = 2
"""A pool is held as it is, and on the grid."""


@dataclass(frozen=True)
class SyntheticRows:
    """Some synthetic rows of one class, with the places of their parents, and how far each lies from the first."""

    label: int
    x: np.ndarray
    first: np.ndarray
    second: np.ndarray
    share: np.ndarray


@dataclass(frozen=True)
class FeatureRange:
    """Lowest and highest value of every feature in the training split, and which features are 0 or 1 only."""

    low: np.ndarray
    high: np.ndarray
    flags: np.ndarray

    @classmethod
    def of(cls, x: np.ndarray, places: np.ndarray) -> FeatureRange:
        """The range of the rows at these places, portion by portion."""
        width = int(np.prod(x.shape[1:], dtype=np.int64))
        low, high = np.full(width, np.inf), np.full(width, -np.inf)
        flags = np.ones(width, bool)
        for part in portions(x):
            inside = places[np.searchsorted(places, part.start) : np.searchsorted(places, part.stop)]
            if len(inside):
                rows = x[inside].reshape(len(inside), -1)
                low, high = np.minimum(low, rows.min(axis=0)), np.maximum(high, rows.max(axis=0))
                flags &= ((rows == 0) | (rows == 1)).all(axis=0)
        return cls(low, high, flags)

    def levels(self, rows: np.ndarray) -> np.ndarray:
        """Rows on a grid of whole numbers, the same for every feature."""
        width = np.where(self.high > self.low, self.high - self.low, 1.0)
        levels: np.ndarray = np.floor((rows - self.low) / width * _LEVELS)
        return levels


def count_lacking(classes: np.ndarray, labels: int, asked: Synthetic) -> np.ndarray:
    """How many synthetic rows each class lacks to reach the balance that was asked for."""
    counts = np.bincount(classes, minlength=labels)
    goal = int(counts.max(initial=0) * asked.share)
    return np.where(counts > 0, np.maximum(goal - counts, 0), 0)


def held_by(width: int, asked: Synthetic) -> int:
    """How many bytes of memory rows of so many numbers take, at least, while the neighbours of a pool are sought."""
    return 8 * width * _ROWS_HELD * _pool(width, asked)


def synthesise(
    x: np.ndarray, y: np.ndarray, places: np.ndarray, labels: tuple[str, ...], asked: Synthetic
) -> Iterator[SyntheticRows]:
    """The synthetic rows for the training rows at `places`, class by class, in portions that fit into memory."""
    lacking = count_lacking(y[places], len(labels), asked)
    if not lacking.any():
        return
    features = FeatureRange.of(x, places)
    for label in np.flatnonzero(lacking):
        own = places[y[places] == label]
        if len(own) < 2:
            cure = "Give the class more rows, or leave `data.synthetic` out."
            message = f"the class {labels[label]!r} has one training row, and a row between two needs two"
            raise unusable("data.synthetic", message, cure)
        yield from _of_class(x, int(label), own, int(lacking[label]), features, asked)


def _of_class(
    x: np.ndarray, label: int, own: np.ndarray, count: int, features: FeatureRange, asked: Synthetic
) -> Iterator[SyntheticRows]:
    key = mix(asked.seed, STREAM, label)
    width = len(features.low)
    order = np.argsort(spread(key, own.astype(np.uint64)), kind="stable")
    pool = own[np.sort(order[: _pool(width, asked)])]
    rows = x[pool].reshape(len(pool), -1).astype(np.float64)
    near = _neighbours(features.levels(rows), min(asked.neighbours, len(pool) - 1))
    step = max(1, CHUNK // (8 * width))
    for start in range(0, count, step):
        number = np.arange(start, min(start + step, count), dtype=np.uint64)
        first = (number % np.uint64(len(pool))).astype(np.int64)
        drawn = spread(mix(key, _NEIGHBOUR), number) >> np.uint64(32)
        second = near[first, (drawn * np.uint64(near.shape[1]) >> np.uint64(32)).astype(np.int64)]
        share = (spread(mix(key, _SHARE), number) % np.uint64(_FRACTIONS)).astype(np.float64) / _FRACTIONS
        between = rows[first] + share[:, None] * (rows[second] - rows[first])
        nearer = np.where(share[:, None] < 0.5, rows[first], rows[second])
        values = np.where(features.flags, nearer, between)
        if x.dtype.kind != "f":
            values = np.rint(values)
        shaped = values.astype(x.dtype).reshape(len(values), *x.shape[1:])
        yield SyntheticRows(label, shaped, pool[first], pool[second], share)


def _pool(width: int, asked: Synthetic) -> int:
    """How many rows of a class are parents, at most."""
    return max(asked.neighbours + 1, min(POOL, _POOL_BYTES // (8 * width)))


def _neighbours(levels: np.ndarray, count: int) -> np.ndarray:
    """For each row the nearest others of its class, the first in order where two are as near."""
    size = len(levels)
    squares = np.square(levels).sum(axis=1)
    neighbours = np.empty((size, count), np.int64)
    for first in range(0, size, 256):
        part = slice(first, min(first + 256, size))
        # Whole numbers below 2**53 in every sum, so the product is exact in any order of addition.
        distance = squares[part, None] + squares[None, :] - 2 * levels[part] @ levels.T
        ranked = distance.astype(np.int64) * size + np.arange(size)
        ranked[np.arange(part.stop - part.start), np.arange(part.start, part.stop)] = np.iinfo(np.int64).max
        nearest = np.partition(ranked, count - 1, axis=1)[:, :count]
        neighbours[part] = np.sort(nearest, axis=1) % size
    return neighbours
