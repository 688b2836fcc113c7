"""Classes take turns."""

from __future__ import annotations

import numpy as np

from contracts.request.sampler import Balanced
from runtime.engine.chance import Stream, mix, spread
from runtime.engine.kinds import Rows, Sampler, samplers
from runtime.engine.order import BLOCK, Order, Permutations


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
        number = int(self._class[row])
        begin = int(self._firsts[number])
        own = int(np.searchsorted(self._members[begin : begin + int(self._sizes[number])], row))
        turned = self._orders[number].where(own, turn)
        return turned * self._classes + int(self._rounds(np.array([turned])).find(np.array([number]))[0, 0])

    def _places(self, first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Class and round at each position."""
        begin, end = first // self._classes, (first + count - 1) // self._classes + 1
        classes = self._rounds(np.arange(begin, end)).at(np.arange(self._classes)).reshape(-1)
        inside = slice(first - begin * self._classes, first - begin * self._classes + count)
        return classes[inside], np.repeat(np.arange(begin, end), self._classes)[inside]

    def _rounds(self, numbers: np.ndarray) -> Permutations:
        return Permutations(spread(self._key, numbers), self._classes)
