"""Which rows a step sees: an endless row of keyed permutations. Nothing is remembered, so nothing needs resuming."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from runtime.engine.chance import Stream, finalised, mix

ROUNDS = 6
BLOCK = 1 << 16


class Permutation:
    """A bijection of range(rows) chosen by a key: a Feistel network over just enough bits, walked until inside."""

    def __init__(self, key: int, rows: int) -> None:
        if rows < 1:
            raise ValueError(f"a permutation of {rows!r} rows does not exist; give at least one row")
        bits = max(2, (rows - 1).bit_length())
        self.rows = rows
        self._low = np.uint64(bits // 2)
        self._low_mask = np.uint64((1 << bits // 2) - 1)
        self._high_mask = np.uint64((1 << (bits - bits // 2)) - 1)
        self._keys = [np.uint64(mix(key, number)) for number in range(ROUNDS)]

    def at(self, positions: np.ndarray) -> np.ndarray:
        """The rows that stand at these positions."""
        return self._walk(positions, self._forward)

    def find(self, rows: np.ndarray) -> np.ndarray:
        """The positions at which these rows stand; `find(at(p)) == p`."""
        return self._walk(rows, self._backward)

    def _walk(self, values: np.ndarray, once: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        found = once(np.asarray(values).astype(np.uint64))
        outside = np.flatnonzero(found >= self.rows)
        while outside.size:
            found[outside] = once(found[outside])
            outside = outside[found[outside] >= self.rows]
        return found.astype(np.int64)

    def _forward(self, values: np.ndarray) -> np.ndarray:
        high, low = values >> self._low, values & self._low_mask
        for number, key in enumerate(self._keys):
            if number % 2:
                high = high ^ (finalised(low ^ key) & self._high_mask)
            else:
                low = low ^ (finalised(high ^ key) & self._low_mask)
        return (high << self._low) | low

    def _backward(self, values: np.ndarray) -> np.ndarray:
        high, low = values >> self._low, values & self._low_mask
        for number in reversed(range(ROUNDS)):
            if number % 2:
                high = high ^ (finalised(low ^ self._keys[number]) & self._high_mask)
            else:
                low = low ^ (finalised(high ^ self._keys[number]) & self._low_mask)
        return (high << self._low) | low


class Order:
    """The endless row: epoch 0's permutation, then epoch 1's, and so on; steps cut batches from it."""

    def __init__(self, seed: int, rows: int) -> None:
        self.rows = rows
        self._seed = seed
        self._block = lru_cache(maxsize=4)(self._made)

    def permutation(self, epoch: int) -> Permutation:
        """The permutation of one epoch, from 0."""
        return Permutation(mix(self._seed, Stream.ORDER, epoch), self.rows)

    def _made(self, epoch: int, block: int) -> np.ndarray:
        first = block * BLOCK
        return self.permutation(epoch).at(np.arange(first, min(first + BLOCK, self.rows)))

    def take(self, first: int, count: int) -> np.ndarray:
        """`count` row numbers of the endless row from position `first` on, as int64."""
        pieces = []
        while count:
            epoch, inside = divmod(first, self.rows)
            block, offset = divmod(inside, BLOCK)
            piece = self._block(epoch, block)[offset : offset + count]
            pieces.append(piece)
            first, count = first + piece.size, count - piece.size
        return np.concatenate(pieces) if len(pieces) != 1 else pieces[0]

    def where(self, row: int, epoch: int) -> int:
        """The position of a row in the endless row within one epoch; no scan."""
        return epoch * self.rows + int(self.permutation(epoch).find(np.array([row]))[0])
