"""The request's sampler over a dataset's training rows, and the endless order of rows that samplers are made of.

What each sampler does is in its part. None needs torch, and nothing is remembered, so nothing needs resuming.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Protocol, Self

import numpy as np

from contracts.errors import InvalidRequest, Problem
from contracts.request import Request
from contracts.request.sampler import Curriculum
from runtime.engine.dataset import Dataset
from runtime.engine.evaluations import EvaluationsView
from runtime.engine.facts import Facts
from runtime.engine.ragged import Ragged
from runtime.engine.random_keys import Stream, extended, finalised, mix, spread
from runtime.engine.registry import Registry

SPLIT = "train"


class SamplerRows(Protocol):
    """What a sampler knows of the training rows."""

    count: int

    def column(self, name: str) -> np.ndarray:
        """A column of whole numbers, one per row."""
        ...


class Sampler(Protocol):
    """An endless row of training rows, a function of position and recorded evaluations; nothing is remembered."""

    def take(self, first: int, count: int) -> np.ndarray:
        """The rows at `count` positions from `first` on, as int64."""
        ...

    def turns(self, first: int, count: int) -> np.ndarray:
        """For each of these positions: which coming of its row it is; every coming has a number of its own, from 0."""
        ...

    def where(self, row: int, turn: int) -> int:
        """The position of one coming of a row; no scan."""
        ...

    def comings(self, row: int, first: int, last: int) -> np.ndarray:
        """Every position of a row from `first` to before `last`, ascending, computed without a scan."""
        ...

    def after(self, seen: EvaluationsView, taken: int) -> Sampler:
        """The same order as these evaluations have it, in steps of `taken` rows; most samplers follow none.

        A step sees the evaluations up to it: more of them change no position before the newest one.
        """
        return self


samplers: Registry[Callable[[Any, int, SamplerRows], Sampler]] = Registry("runtime.engine.parts.samplers")


def sampler_of(request: Request, dataset: Dataset) -> Sampler:
    """The order of training rows: a pure function of request and dataset, the same on every machine."""
    return samplers.of(request.sampler)(request.sampler, request.reproducibility.seed, TrainingRows.of(dataset))


def check_sampler(request: Request, facts: Facts) -> None:
    """Raises `InvalidRequest` when the sampler goes by a column that is not there or holds no whole numbers."""
    name = getattr(request.sampler, "column", None)
    if name is None:
        return
    column = facts.columns.get(name)
    by_length = isinstance(request.sampler, Curriculum) and column is not None and -1 in column.shape
    if not by_length and (column is None or column.shape or np.dtype(column.dtype).kind not in "iub"):
        message = f"there is no column {name!r} of whole numbers, one per row"
        raise InvalidRequest([Problem("sampler.column", message, f"Columns: {', '.join(facts.columns)}.")])


class TrainingRows:
    """How many rows there are, and columns of whole numbers about them."""

    def __init__(self, count: int, columns: Mapping[str, np.ndarray | Ragged]) -> None:
        self.count = count
        self._columns = columns

    @classmethod
    def of(cls, dataset: Dataset) -> Self:
        """Those of a dataset."""
        return cls(dataset.facts.rows[SPLIT], {**dataset.columns(SPLIT), **dataset.ragged(SPLIT)})

    def column(self, name: str) -> np.ndarray:
        """One whole number per row; of a column whose rows have any length, the length of each."""
        found = self._columns[name]
        return np.diff(found.offsets) if isinstance(found, Ragged) else np.asarray(found)


ROUNDS = 6
BLOCK = 1 << 15

Turn = Callable[[np.ndarray, list[np.ndarray]], np.ndarray]


class Permutations:
    """Bijections of range(rows), one per key: a Feistel network over just enough bits, walked until inside."""

    def __init__(self, keys: np.ndarray, rows: int) -> None:
        if rows < 1:
            raise ValueError(f"a permutation of {rows!r} rows does not exist; give at least one row")
        bits = max(2, (rows - 1).bit_length())
        self.rows = rows
        self._low = np.uint64(bits // 2)
        self._low_mask = np.uint64((1 << bits // 2) - 1)
        self._high_mask = np.uint64((1 << (bits - bits // 2)) - 1)
        self._keys = [extended(keys.astype(np.uint64), number) for number in range(ROUNDS)]

    def at(self, positions: np.ndarray) -> np.ndarray:
        """The rows at these positions, one line of the result for each permutation."""
        return self._walk(positions, self._forward)

    def find(self, rows: np.ndarray) -> np.ndarray:
        """The positions of these rows, one line for each permutation: the inverse of `at`."""
        return self._walk(rows, self._backward)

    def _walk(self, values: np.ndarray, turn: Turn) -> np.ndarray:
        found = turn(values.astype(np.uint64), [key[:, None] for key in self._keys])
        flat = found.reshape(-1)
        outside = np.flatnonzero(flat >= self.rows)
        while outside.size:
            owners = outside // len(values)
            walked = turn(flat[outside], [key[owners] for key in self._keys])
            flat[outside] = walked
            outside = outside[walked >= self.rows]
        return found.astype(np.int64)

    def _forward(self, values: np.ndarray, keys: list[np.ndarray]) -> np.ndarray:
        high, low = values >> self._low, values & self._low_mask
        for number, key in enumerate(keys):
            if number % 2:
                high = high ^ (finalised(low ^ key) & self._high_mask)
            else:
                low = low ^ (finalised(high ^ key) & self._low_mask)
        return np.asarray((high << self._low) | low)

    def _backward(self, values: np.ndarray, keys: list[np.ndarray]) -> np.ndarray:
        high, low = values >> self._low, values & self._low_mask
        for number, key in reversed(list(enumerate(keys))):
            if number % 2:
                high = high ^ (finalised(low ^ key) & self._high_mask)
            else:
                low = low ^ (finalised(high ^ key) & self._low_mask)
        return np.asarray((high << self._low) | low)


class Order(Sampler):
    """The endless order of rows: epoch 0's permutation, then epoch 1's, and so on; steps cut batches from it."""

    def __init__(self, seed: int, rows: int, block: int = BLOCK) -> None:
        self.rows = rows
        self._seed = seed
        self._epochs = max(1, block // rows)
        self._length = min(block, rows)
        self._pieces = -(-rows // self._length)
        self._block = lru_cache(maxsize=4)(self._made)

    def permutations(self, epochs: np.ndarray) -> Permutations:
        """The permutations of some epochs, counted from 0."""
        return Permutations(spread(mix(self._seed, Stream.ORDER), epochs), self.rows)

    def _made(self, block: int) -> np.ndarray:
        """One block of the endless row: some whole epochs, or a piece of one."""
        if self._epochs > 1:
            held = np.arange(block * self._epochs, (block + 1) * self._epochs)
            return self.permutations(held).at(np.arange(self.rows)).reshape(-1)
        epoch, piece = divmod(block, self._pieces)
        inside = np.arange(piece * self._length, min((piece + 1) * self._length, self.rows))
        (rows,) = self.permutations(np.array([epoch])).at(inside)
        return np.asarray(rows)

    def take(self, first: int, count: int) -> np.ndarray:
        """`count` row numbers of the endless row from position `first` on, as int64."""
        pieces = []
        while count:
            if self._epochs > 1:
                block, offset = divmod(first, self._epochs * self.rows)
            else:
                epoch, inside = divmod(first, self.rows)
                piece, offset = divmod(inside, self._length)
                block = epoch * self._pieces + piece
            pieces.append(self._block(block)[offset : offset + count])
            first, count = first + pieces[-1].size, count - pieces[-1].size
        return np.concatenate(pieces) if len(pieces) != 1 else pieces[0]

    def turns(self, first: int, count: int) -> np.ndarray:
        """Which coming of its row each position is: there is one per epoch."""
        return np.arange(first, first + count) // self.rows

    def where(self, row: int, turn: int) -> int:
        """The position of a row in the endless row within one epoch; no scan."""
        return turn * self.rows + int(self.permutations(np.array([turn])).find(np.array([row]))[0, 0])

    def comings(self, row: int, first: int, last: int) -> np.ndarray:
        """Every position of a row from `first` to before `last`, ascending, computed without a scan."""
        return self.standing(np.array([row]), first, last)

    def standing(self, rows: np.ndarray, first: int, last: int) -> np.ndarray:
        """As `comings`, for any of several rows."""
        epochs = np.arange(first // self.rows, -(-last // self.rows))
        size = max(1, BLOCK // max(1, len(rows)))
        cut = [epochs[at : at + size] for at in range(0, len(epochs), size)]
        return between([self.permutations(some).find(rows) + some[:, None] * self.rows for some in cut], first, last)


def between(pieces: Sequence[np.ndarray], first: int, last: int) -> np.ndarray:
    """The positions among these that lie from `first` to before `last`, in order."""
    flat = np.sort(np.concatenate([np.empty(0, np.int64), *(one.reshape(-1) for one in pieces)]))
    return flat[np.searchsorted(flat, first) : np.searchsorted(flat, last)]
