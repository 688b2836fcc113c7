"""Rows of a group one after another."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from contracts.request.sampler import Grouped
from runtime.engine.chance import Stream, extended, mix, spread
from runtime.engine.order import BLOCK, Permutations, between
from runtime.engine.sampling import Rows, Sampler, samplers


@samplers.part(Grouped)
def build(options: Grouped, seed: int, rows: Rows) -> Sampler:
    """Each epoch has all groups in an order of its own, and each group's rows too."""
    return Together(seed, rows.column(options.column))


class Together:
    """Groups follow a permutation per epoch; within a group rows follow the size of a draw of their own."""

    def __init__(self, seed: int, values: np.ndarray) -> None:
        _, self._group, self._sizes = np.unique(values, return_inverse=True, return_counts=True)
        self._members = np.argsort(self._group, kind="stable")
        self._firsts = np.cumsum(self._sizes) - self._sizes
        self._seed, self._rows = seed, len(values)
        self._epoch = lru_cache(maxsize=4)(self._made)

    def take(self, first: int, count: int) -> np.ndarray:
        pieces = []
        while count:
            epoch, inside = divmod(first, self._rows)
            some = min(count, self._rows - inside)
            pieces.append(self._taken(epoch, inside, some))
            first, count = first + some, count - some
        return np.concatenate(pieces)

    def turns(self, first: int, count: int) -> np.ndarray:
        return np.arange(first, first + count) // self._rows

    def where(self, row: int, turn: int) -> int:
        group = int(self._group[row])
        (slot,) = self._groups(np.array([turn])).find(np.array([group]))[0]
        _, starts = self._epoch(turn)
        inside = int(np.flatnonzero(self._shuffled(turn, np.array([group])) == row)[0])
        return turn * self._rows + int(starts[slot]) + inside

    def comings(self, row: int, first: int, last: int) -> np.ndarray:
        epochs = np.arange(first // self._rows, -(-last // self._rows))
        size = max(1, BLOCK // (len(self._sizes) + int(self._sizes[self._group[row]])))
        cut = (epochs[at : at + size] for at in range(0, len(epochs), size))
        return between([self._stands(row, some) for some in cut], first, last)

    def _stands(self, row: int, epochs: np.ndarray) -> np.ndarray:
        """The position of a row in each of these epochs: all groups before its own, all fellows before itself."""
        own = int(self._group[row])
        groups = self._groups(epochs)
        order = groups.at(np.arange(len(self._sizes)))
        slots = groups.find(np.array([own]))
        before = np.where(np.arange(len(self._sizes)) < slots, self._sizes[order], 0).sum(axis=1)
        fellows = self._members[self._firsts[own] : self._firsts[own] + self._sizes[own]]
        drawn = extended(spread(mix(self._seed, Stream.WITHIN), epochs)[:, None], fellows)
        place = int(np.searchsorted(fellows, row))
        earlier = (drawn < drawn[:, [place]]) | ((drawn == drawn[:, [place]]) & (fellows < row))
        return np.asarray(epochs * self._rows + before + earlier.sum(axis=1))

    def _taken(self, epoch: int, first: int, count: int) -> np.ndarray:
        """Rows of one epoch: those of all groups that are touched, cut to what is wanted."""
        groups, starts = self._epoch(epoch)
        begin, end = (int(np.searchsorted(starts, at, side="right")) - 1 for at in (first, first + count - 1))
        offset = first - int(starts[begin])
        return self._shuffled(epoch, groups[begin : end + 1])[offset : offset + count]

    def _made(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """The groups of an epoch in order, and where each begins."""
        (groups,) = self._groups(np.array([epoch])).at(np.arange(len(self._sizes)))
        ends = np.cumsum(self._sizes[groups])
        return groups, ends - self._sizes[groups]

    def _shuffled(self, epoch: int, groups: np.ndarray) -> np.ndarray:
        """All rows of some groups, group by group, each in its order of this epoch."""
        sizes = self._sizes[groups]
        ends = np.cumsum(sizes)
        rows = self._members[np.repeat(self._firsts[groups] - (ends - sizes), sizes) + np.arange(ends[-1])]
        drawn = spread(mix(self._seed, Stream.WITHIN, epoch), rows)
        return np.asarray(rows[np.lexsort((drawn, np.repeat(np.arange(len(groups)), sizes)))])

    def _groups(self, epochs: np.ndarray) -> Permutations:
        return Permutations(spread(mix(self._seed, Stream.AMONG), epochs), len(self._sizes))
