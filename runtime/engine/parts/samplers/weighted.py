"""Rows as often as they are worth."""

from __future__ import annotations

import numpy as np

from contracts.errors import InvalidRequest, Problem
from contracts.request.sampler import Weighted
from runtime.engine.order import Order
from runtime.engine.sampling import Rows, Sampler, samplers

MOST = 1 << 40


@samplers.part(Weighted)
def build(options: Weighted, seed: int, rows: Rows) -> Sampler:
    """The order of as many places as all rows take together, each row having some in a row."""
    return Repeated(seed, _repeats(options, rows.column(options.column)))


class Repeated:
    """Row r takes the places from `first[r]` to before `first[r + 1]` of a longer order."""

    def __init__(self, seed: int, repeats: np.ndarray) -> None:
        self._first = np.concatenate([[0], np.cumsum(repeats, dtype=np.int64)])
        self._order = Order(seed, int(self._first[-1]))

    def take(self, first: int, count: int) -> np.ndarray:
        return self._rows(self._order.take(first, count))

    def turns(self, first: int, count: int) -> np.ndarray:
        places = self._order.take(first, count)
        rows = self._rows(places)
        repeats = self._first[rows + 1] - self._first[rows]
        turns: np.ndarray = self._order.turns(first, count) * repeats + places - self._first[rows]
        return turns

    def where(self, row: int, turn: int) -> int:
        first, last = (int(one) for one in self._first[row : row + 2])
        if first == last:
            raise ValueError(f"row {row} never comes: it has no repeats")
        epoch, again = divmod(turn, last - first)
        return self._order.where(first + again, epoch)

    def comings(self, row: int, first: int, last: int) -> np.ndarray:
        return self._order.standing(np.arange(self._first[row], self._first[row + 1]), first, last)

    def _rows(self, places: np.ndarray) -> np.ndarray:
        return np.asarray(np.searchsorted(self._first, places, side="right") - 1)


def _repeats(options: Weighted, values: np.ndarray) -> np.ndarray:
    lowest, highest = int(values.min()), int(values.max())
    if lowest < 0 or (options.repeats and highest >= len(options.repeats)):
        message = f"the column {options.column!r} has values from {lowest} to {highest}"
        cure = (
            f"Give {highest + 1} numbers, one for each value from 0." if lowest >= 0 else "Choose a column from 0 on."
        )
        raise InvalidRequest([Problem("sampler.repeats", message, cure)])
    repeats = np.asarray(options.repeats, np.int64)[values] if options.repeats else values.astype(np.int64)
    if not 0 < repeats.astype(np.float64).sum() < MOST:
        message = "the repeats of all rows together are none, or too many"
        raise InvalidRequest([Problem("sampler.repeats", message, "Give small whole numbers, at least one above 0.")])
    return repeats
