"""Turns row numbers into batches: columns of a memory-mapped split as tensors on the device, changed by chance.

It chooses no rows. A request's augmentations change whole batches, a workload's way one row after another; every draw
is keyed by seed, row and which coming of the row it is, never by batch or worker: the same row is changed in the same
way wherever it comes to stand.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from contracts.errors import InvalidRequest, Problem
from contracts.request.sampler import OF_IMAGES, Augment
from contracts.trainer import MOST_NAMED_ROWS
from runtime.engine import kinds
from runtime.engine.dataset import Dataset
from runtime.engine.draws import Draws
from runtime.engine.facts import Facts
from runtime.engine.kinds import Spread
from runtime.engine.ragged import SUFFIX, Ragged, apart, together
from runtime.engine.random_keys import Draw, Stream, extended, mix
from runtime.engine.wrappers import per_feature

RESIDENT = 1 << 30

Change = Callable[[dict[str, Tensor], np.ndarray, Tensor], dict[str, Tensor]]
"""Columns of some rows changed by chance, given which coming of its row each one is, and the rows."""

Turns = Callable[[int, int], np.ndarray]


class BatchRows(NamedTuple):
    """The rows of one batch, and where in the endless row of permutations the batch begins.

    Of a batch from which rows were left out `stand` says, for those that stay, how far behind its beginning they stand.
    """

    rows: Tensor
    position: int
    stand: np.ndarray | None = None


Columns = dict[str, Tensor]


class Prefetch:
    """Makes the batches of a window in threads before they are wanted: the same, each being a function of its rows.

    Two batches for each worker are made ahead. What is wanted out of its turn is made at once, by who wants it.
    """

    def __init__(self, make: Callable[[BatchRows], Columns], workers: int) -> None:
        self._make = make
        self._depth = 2 * workers
        self._pool = ThreadPoolExecutor(workers, "data")
        self._coming: Sequence[BatchRows] = ()
        self._places: dict[int, int] = {}
        """By the identity of a batch, its place; the sequence keeps them alive."""
        self._made: dict[int, Future[Columns]] = {}
        self._next = 0

    def expect(self, coming: Sequence[BatchRows]) -> None:
        """Begin with the first of these batches; what was made of others is let go."""
        for future in self._made.values():
            future.cancel()
        self._coming, self._made, self._next = coming, {}, 0
        self._places = {id(rows): place for place, rows in enumerate(coming)}
        self._fill()

    def take(self, rows: BatchRows) -> Columns:
        """The batch, which no later call gets; raises what making it raised."""
        place = self._places.get(id(rows), -1)
        if place < self._next:
            return self._make(rows)
        for passed in range(self._next, place):
            if (future := self._made.pop(passed, None)) is not None:
                future.cancel()
        self._next = place
        made = self._made.pop(place, None)
        self._next += 1
        self._fill()
        return made.result() if made is not None else self._make(rows)

    def _fill(self) -> None:
        for place in range(self._next, min(self._next + self._depth, len(self._coming))):
            # An attempt whose rows were all left out asks for none.
            if place not in self._made and len(self._coming[place].rows):
                self._made[place] = self._pool.submit(self._make, self._coming[place])


class Feed:
    """One split; small enough, it lives on the device, else rows travel batch by batch (the bits are the same).

    With `workers` batches are made ahead in as many threads; with `pin_memory` rows travel to a GPU from locked memory.
    """

    def __init__(
        self, dataset: Dataset, split: str, device: str, workers: int = 0, *, pin_memory: bool = False
    ) -> None:
        self.rows = dataset.facts.rows[split]
        self._device = torch.device(device)
        fixed, ragged = dataset.columns(split), dataset.ragged(split)
        tensors = {name: torch.from_numpy(np.asarray(one)) for name, one in apart({**fixed, **ragged}).items()}
        resident = sum(one.nbytes for one in tensors.values()) <= RESIDENT
        placed = {name: one.to(self._device) if resident else one for name, one in tensors.items()}
        self._columns = {name: placed[name] for name in fixed}
        self._ragged = {name: (placed[name], placed[name + SUFFIX]) for name in ragged}
        self._where = self._device if resident else torch.device("cpu")
        self._moves = self._where != self._device
        self._pinned = pin_memory and self._moves
        self._ahead = Prefetch(self.make, workers) if workers else None

    def batches(self, rows: np.ndarray, size: int, position: int, without: np.ndarray | None = None) -> list[BatchRows]:
        """Consecutive batches of `size` rows; `position` is that of the first row of the first batch.

        `without` says of every row of the split whether it is left out of its batches, some of which may end up empty.
        """
        cut = torch.from_numpy(rows.reshape(-1, size)).to(self._where).unbind(0)
        whole = [BatchRows(one, position + number * size) for number, one in enumerate(cut)]
        if without is not None and without[rows].any():
            whole = [self._thinned(*pair) for pair in zip(whole, ~without[rows].reshape(-1, size), strict=True)]
        if self._ahead is not None:
            self._ahead.expect(whole)
        return whole

    def _thinned(self, batch: BatchRows, stays: np.ndarray) -> BatchRows:
        if stays.all():
            return batch
        stand = np.flatnonzero(stays)
        return BatchRows(batch.rows[torch.from_numpy(stand).to(self._where)], batch.position, stand)

    def batch(self, rows: BatchRows) -> Columns:
        """The columns of some rows as a step takes them, no part of which is anybody else's."""
        return self.finish(self.make(rows) if self._ahead is None else self._ahead.take(rows), rows)

    def make(self, rows: BatchRows) -> Columns:
        """The part of it that another thread may do: it draws from no generator, and calls no code of users."""
        return self.gather(rows)

    def finish(self, columns: Columns, rows: BatchRows) -> Columns:
        """The part of it that the thread does which trains."""
        return columns

    def gather(self, rows: BatchRows) -> Columns:
        """The columns of some rows, freshly gathered and aligned; of ragged ones values, with offsets beside them."""
        found = {name: column.index_select(0, rows.rows) for name, column in self._columns.items()}
        for name, column in self._ragged.items():
            # The values of the rows one after another, and where each begins.
            values, offsets = column
            starts = offsets.index_select(0, rows.rows)
            lengths = offsets.index_select(0, rows.rows + 1) - starts
            ends = lengths.cumsum(0)
            at = torch.arange(int(ends[-1]), device=rows.rows.device)
            at = torch.repeat_interleave(starts - (ends - lengths), lengths) + at
            found[name], found[name + SUFFIX] = values.index_select(0, at), torch.cat([ends.new_zeros(1), ends])
        if self._pinned:
            # The copy is in the order of the device's own work, and the allocator keeps the source until it is over.
            return {name: one.pin_memory().to(self._device, non_blocking=True) for name, one in found.items()}
        return {name: one.to(self._device) for name, one in found.items()} if self._moves else found

    def follow(self, turns: Turns) -> None:
        """Take from here which coming of its row each position is, in the batches that follow."""

    def slice(self, first: int, last: int) -> dict[str, Tensor]:
        """The columns of rows in a row, as they are stored."""
        return self.gather(BatchRows(torch.arange(first, min(last, self.rows), device=self._where), first))

    def rows_not_finite(self, rows: np.ndarray, size: int, without: np.ndarray | None = None) -> tuple[int, ...]:
        """Which of these rows are stored with a value that is not finite, by their places from 1; the first 16.

        They are read again in portions of `size` rows, as they are stored; those left out are passed over.
        """
        distinct = np.unique(rows if without is None else rows[~without[rows]])
        found: list[int] = []
        for first in range(0, len(distinct), size):
            portion = distinct[first : first + size]
            columns = self.gather(BatchRows(torch.from_numpy(portion).to(self._where), 0))
            wrong = np.zeros(len(portion), bool)
            for name, column in columns.items():
                if not column.is_floating_point():
                    continue
                odd = ~torch.isfinite(column).flatten(1).all(1) if column.dim() > 1 else ~torch.isfinite(column)
                if name in self._ragged:
                    counts = torch.cat([odd.new_zeros(1, dtype=torch.int64), odd.cumsum(0)])[columns[name + SUFFIX]]
                    odd = counts.diff() > 0
                wrong |= odd.cpu().numpy()
            found += (portion[wrong] + 1).tolist()
            if len(found) >= MOST_NAMED_ROWS:
                break
        return tuple(found[:MOST_NAMED_ROWS])

    def all_columns(self) -> Mapping[str, Tensor]:
        """All columns of the split with every row, on the CPU."""
        found = {name: column.cpu() for name, column in self._columns.items()}
        for name, (values, offsets) in self._ragged.items():
            found |= {name: values.cpu(), name + SUFFIX: offsets.cpu()}
        return found


class AugmentedSplit(Feed):
    """A split whose rows are changed by chance, each by which of its comings it is."""

    def __init__(
        self,
        dataset: Dataset,
        split: str,
        device: str,
        changes: Sequence[Change],
        turns: Turns,
        workers: int = 0,
        *,
        pin_memory: bool = False,
    ) -> None:
        self._changes = [change for change in changes if not isinstance(change, RowByRow)]
        self._own = [change for change in changes if isinstance(change, RowByRow)]
        self._turns, self._turning = turns, Lock()
        super().__init__(dataset, split, device, workers, pin_memory=pin_memory)

    def follow(self, turns: Turns) -> None:
        self._turns = turns

    def make(self, rows: BatchRows) -> Columns:
        columns = self.gather(rows)
        return self._changed(columns, rows, self._changes) if self._changes else columns

    def finish(self, columns: Columns, rows: BatchRows) -> Columns:
        # A user's code may draw from the generators that the step has seeded, which are the training thread's.
        return self._changed(columns, rows, self._own) if self._own else columns

    def _changed(self, columns: Columns, rows: BatchRows, changes: Sequence[Change]) -> Columns:
        with self._turning:
            if rows.stand is None:
                turns = self._turns(rows.position, len(rows.rows))
            else:
                turns = self._turns(rows.position, int(rows.stand[-1]) + 1)[rows.stand]
        for change in changes:
            columns = change(columns, turns, rows.rows)
        return columns


ByRow = Callable[[dict[str, np.ndarray], Draw], dict[str, np.ndarray]]
"""How a workload changes one row."""


class AugmentationChain:
    """The parts that a request names, one after another."""

    def __init__(self, options: Sequence[Augment], facts: Facts, seed: int) -> None:
        self._changes = [(kinds.augmentations.of(one), one) for one in options]
        self._key = np.array([mix(seed, Stream.CHANGE)], np.uint64)
        self._usual = Spread(per_feature(facts.mean, facts), per_feature(facts.scale, facts))

    def __call__(self, columns: Columns, turns: np.ndarray, rows: Tensor) -> Columns:
        """The columns with `x` changed, as numbers of 32 bits."""
        keys = extended(extended(self._key, turns), rows.cpu().numpy())
        x = columns["x"].float()
        self._usual = Spread(*(one.to(x.device) for one in self._usual))
        for position, (change, options) in enumerate(self._changes):
            x = change(options, x, Draws(extended(keys, position), x.device), self._usual)
        return {**columns, "x": x}


class RowByRow:
    """A workload's `augment`, which is handed one row and one `Draw` at a time."""

    def __init__(self, augment: ByRow, seed: int) -> None:
        self._augment, self._seed = augment, seed

    def __call__(self, columns: Columns, turns: np.ndarray, rows: Tensor) -> Columns:
        """The columns with every row changed; their types stay."""
        device = next(iter(columns.values())).device
        fixed, ragged = together({name: one.cpu().numpy() for name, one in columns.items()})
        samples = [
            {name: column[at] for name, column in fixed.items()} | {name: one.row(at) for name, one in ragged.items()}
            for at in range(len(rows))
        ]
        drawn = zip(turns.tolist(), rows.tolist(), samples, strict=True)
        changed = [self._augment(sample, Draw(self._seed, turn, row)) for turn, row, sample in drawn]
        types = {name: column.dtype for name, column in fixed.items()}
        types |= {name: column.values.dtype for name, column in ragged.items()}
        joined = {
            name: Ragged.of([one[name] for one in changed])
            if name in ragged
            else np.stack([one[name] for one in changed])
            for name in changed[0]
        }
        return {
            name: torch.from_numpy(column.astype(types.get(name, column.dtype))).to(device)
            for name, column in apart(joined).items()
        }


def check_augment(options: Sequence[Augment], facts: Facts) -> None:
    """Raises `InvalidRequest` when rows of this shape cannot be changed so."""
    if not options:
        return
    x = facts.columns.get("x")
    if x is None or -1 in x.shape or facts.task == "sequences":
        message = "there is no column `x` of numbers, equally many in every row"
        raise InvalidRequest([Problem("augment", message, "Leave `augment` out, or let a workload change rows.")])
    problems = [
        Problem(f"augment.{at}.type", f"{one.type} needs images, and a row has the shape {list(x.shape)}", _CURE)
        for at, one in enumerate(options)
        if isinstance(one, OF_IMAGES) and len(x.shape) != 3
    ]
    if problems:
        raise InvalidRequest(problems)


_CURE = "Choose noise, drop or jitter."
