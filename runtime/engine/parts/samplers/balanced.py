"""Classes take turns."""

from __future__ import annotations

import numpy as np

from contracts.request.sampler import Balanced
from runtime.engine.chance import Stream, mix, spread
from runtime.engine.order import BLOCK, Order, Permutations, between
from runtime.engine.sampling import Rows, Sampler, samplers


@samplers.part(Balanced)
def build(options: Balanced, seed: int, rows: Rows) -> Sampler:
    """In rounds: each holds every value of the column once, in an order of its own."""
    return Rounds(seed, rows.column(options.column))


class Rounds:
    """Class c brings its k-th row in round k, by an endless order of its own rows."""

    def __init__(self, seed: int, values: np.ndarray) -> None:
        _, self._class, self._sizes = np.unique(values, return_inverse=True, return_counts=True)
        self._members = np.argsort(self._class, kind="stable")
        self._firsts = np.cumsum(self._sizes) - self._sizes
        self._key = mix(seed, Stream.AMONG)
        self._classes = len(self._sizes)
        block = max(1, BLOCK // self._classes)
        keyed = enumerate(self._sizes.tolist())
        self._orders = [Order(mix(seed, Stream.WITHIN, number), size, block) for number, size in keyed]

    def take(self, first: int, count: int) -> np.ndarray:
        classes, rounds = self._places(first, count)
        begin, end = int(rounds[0]), int(rounds[-1]) + 1
        brought = np.stack([order.take(begin, end - begin) for order in self._orders])
        return np.asarray(self._members[self._firsts[classes] + brought[classes, rounds - begin]])

    def turns(self, first: int, count: int) -> np.ndarray:
        classes, rounds = self._places(first, count)
        return np.asarray(rounds // self._sizes[classes])

    def where(self, row: int, turn: int) -> int:
        number, own = self._own(row)
        return int(self._stands(number, np.array([self._orders[number].where(own, turn)]))[0])

    def comings(self, row: int, first: int, last: int) -> np.ndarray:
        number, own = self._own(row)
        rounds = self._orders[number].comings(own, first // self._classes, -(-last // self._classes))
        cut = (rounds[at : at + BLOCK] for at in range(0, len(rounds), BLOCK))
        return between([self._stands(number, some) for some in cut], first, last)

    def _own(self, row: int) -> tuple[int, int]:
        """The class of a row, and its place among the rows of that class."""
        number = int(self._class[row])
        begin = int(self._firsts[number])
        return number, int(np.searchsorted(self._members[begin : begin + int(self._sizes[number])], row))

    def _stands(self, number: int, rounds: np.ndarray) -> np.ndarray:
        """The position of a class in each of these rounds."""
        return np.asarray(rounds * self._classes + self._rounds(rounds).find(np.array([number]))[:, 0])

    def _places(self, first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Class and round at each position."""
        begin, end = first // self._classes, (first + count - 1) // self._classes + 1
        classes = self._rounds(np.arange(begin, end)).at(np.arange(self._classes)).reshape(-1)
        inside = slice(first - begin * self._classes, first - begin * self._classes + count)
        return classes[inside], np.repeat(np.arange(begin, end), self._classes)[inside]

    def _rounds(self, numbers: np.ndarray) -> Permutations:
        return Permutations(spread(self._key, numbers), self._classes)
