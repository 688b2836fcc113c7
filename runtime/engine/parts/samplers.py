"""Samplers: which training row is at which position of the endless order; bijections without memory."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import islice
from typing import NamedTuple

import numpy as np

from contracts.errors import InvalidRequest, Problem
from contracts.request.sampler import Balanced, Curriculum, Grouped, Uniform, Weighted
from runtime.engine.evaluations import EvaluationsView
from runtime.engine.random_keys import Stream, extended, mix, spread
from runtime.engine.sampling import BLOCK, Order, Permutations, Sampler, SamplerRows, between, samplers


@samplers.part(Uniform)
def uniform(options: Uniform, seed: int, rows: SamplerRows) -> Sampler:
    """Every row once per epoch. The order itself."""
    return Order(seed, rows.count)


MOST = 1 << 40


@samplers.part(Weighted)
def weighted(options: Weighted, seed: int, rows: SamplerRows) -> Sampler:
    """Rows as often as they are worth.

    The order of as many places as all rows take together, each row having some in a row.
    """
    return RepeatedOrder(seed, _repeats(options, rows.column(options.column)))


class RepeatedOrder(Sampler):
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


@samplers.part(Balanced)
def balanced(options: Balanced, seed: int, rows: SamplerRows) -> Sampler:
    """Classes take turns. In rounds: each holds every value of the column once, in an order of its own."""
    return RoundRobinOrder(seed, rows.column(options.column))


class RoundRobinOrder(Sampler):
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


@samplers.part(Grouped)
def grouped(options: Grouped, seed: int, rows: SamplerRows) -> Sampler:
    """Rows of a group one after another.

    Each epoch has all groups in an order of its own, and each group's rows too.
    """
    return GroupedOrder(seed, rows.column(options.column))


class GroupedOrder(Sampler):
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


@samplers.part(Curriculum)
def curriculum(options: Curriculum, seed: int, rows: SamplerRows) -> Sampler:
    """Easy rows first. More rows come each time that the control metric stops improving.

    A stage has the first rows in the order of the column, all of them once in each round.
    """
    return CurriculumOrder(options, seed, np.argsort(rows.column(options.column), kind="stable"))


class CurriculumStage(NamedTuple):
    """From position `begins` to before `ends`, which is None for the last: an order of the easiest rows."""

    begins: int
    ends: int | None
    order: Order

    def times(self, places: np.ndarray) -> np.ndarray:
        """How often the rows at these places, counted from the easiest, come before a stage that has ended does."""
        length = (self.ends or self.begins) - self.begins
        rounds, rest = divmod(length, self.order.rows)
        inside = places < self.order.rows
        found = np.zeros(len(places), np.int64)
        found[inside] = rounds
        if rest and inside.any():
            found[inside] += self.order.permutations(np.array([rounds])).find(places[inside])[0] < rest
        return found


class CurriculumOrder(Sampler):
    """Stages one after another, each with more rows; the next begins where an evaluation shows a stall."""

    def __init__(self, options: Curriculum, seed: int, easiest: np.ndarray, begins: tuple[int, ...] = (0,)) -> None:
        self._options, self._seed, self._easiest, self._begins = options, seed, easiest, begins
        self._sizes: list[int] = []
        while not self._sizes or self._sizes[-1] < len(easiest):
            share = options.start + options.widen * len(self._sizes)
            self._sizes.append(min(len(easiest), max(1, round(share * len(easiest)))))
        ends = (*begins[1:], None)
        self._stages = [
            CurriculumStage(first, last, Order(mix(seed, Stream.WITHIN, number), size))
            for number, (first, last, size) in enumerate(zip(begins, ends, self._sizes, strict=False))
        ]

    def after(self, seen: EvaluationsView, taken: int) -> CurriculumOrder:
        stalls = seen.stalls(patience=self._options.patience, min_delta=self._options.min_delta)
        begins = (0, *(step * taken for step in islice(stalls, len(self._sizes) - 1)))
        return self if begins == self._begins else CurriculumOrder(self._options, self._seed, self._easiest, begins)

    def take(self, first: int, count: int) -> np.ndarray:
        places = [
            stage.order.take(begin - stage.begins, end - begin) for _, stage, begin, end in self._cuts(first, count)
        ]
        return np.asarray(self._easiest[np.concatenate(places)])

    def turns(self, first: int, count: int) -> np.ndarray:
        found = []
        for number, stage, begin, end in self._cuts(first, count):
            places = stage.order.take(begin - stage.begins, end - begin)
            before = [earlier.times(places) for earlier in self._stages[:number]]
            found.append(sum(before, stage.order.turns(begin - stage.begins, end - begin)))
        return np.concatenate(found)

    def where(self, row: int, turn: int) -> int:
        place, left = self._place(row), turn
        for stage in self._stages:
            times = int(stage.times(np.array([place]))[0])
            if place < stage.order.rows and (stage.ends is None or left < times):
                return stage.begins + stage.order.where(place, left)
            left -= times
        raise ValueError(f"row {row} does not come {turn + 1} times: the control metric has not stalled often enough")

    def comings(self, row: int, first: int, last: int) -> np.ndarray:
        place = self._place(row)
        pieces = [
            stage.order.comings(place, begin - stage.begins, end - stage.begins) + stage.begins
            for _, stage, begin, end in self._cuts(first, last - first)
            if place < stage.order.rows
        ]
        return np.concatenate([np.empty(0, np.int64), *pieces])

    def _place(self, row: int) -> int:
        """The place of a row, counted from the easiest."""
        return int(np.flatnonzero(self._easiest == row)[0])

    def _cuts(self, first: int, count: int) -> Iterator[tuple[int, CurriculumStage, int, int]]:
        """The stages that these positions touch, each with its number and the part of the positions within it."""
        for number, stage in enumerate(self._stages):
            begin = max(first, stage.begins)
            end = first + count if stage.ends is None else min(first + count, stage.ends)
            if begin < end:
                yield number, stage, begin, end
