"""Turns row numbers into batches: columns of a memory-mapped split as tensors on the device. It chooses no rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from runtime.engine.dataset import Dataset
from runtime.engine.ragged import SUFFIX, apart

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


class Feed:
    """One split; small enough, it lives on the device, else rows travel batch by batch (the bits are the same)."""

    def __init__(self, dataset: Dataset, split: str, device: str) -> None:
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

    def batches(self, rows: np.ndarray, size: int, position: int, without: np.ndarray | None = None) -> list[BatchRows]:
        """Consecutive batches of `size` rows; `position` is that of the first row of the first batch.

        `without` says of every row of the split whether it is left out of its batches, some of which may end up empty.
        """
        cut = torch.from_numpy(rows.reshape(-1, size)).to(self._where).unbind(0)
        whole = [BatchRows(one, position + number * size) for number, one in enumerate(cut)]
        if without is None or not without[rows].any():
            return whole
        return [self._thinned(*pair) for pair in zip(whole, ~without[rows].reshape(-1, size), strict=True)]

    def _thinned(self, batch: BatchRows, stays: np.ndarray) -> BatchRows:
        if stays.all():
            return batch
        stand = np.flatnonzero(stays)
        return BatchRows(batch.rows[torch.from_numpy(stand).to(self._where)], batch.position, stand)

    def batch(self, rows: BatchRows) -> dict[str, Tensor]:
        """The columns of some rows, freshly gathered and aligned; of ragged ones values, with offsets beside them."""
        found = {name: column.index_select(0, rows.rows) for name, column in self._columns.items()}
        for name, column in self._ragged.items():
            found[name], found[name + SUFFIX] = _gathered(*column, rows.rows)
        return {name: one.to(self._device) for name, one in found.items()} if self._moves else found

    def slice(self, first: int, last: int) -> dict[str, Tensor]:
        """The columns of rows in a row, as they are stored."""
        return Feed.batch(self, BatchRows(torch.arange(first, min(last, self.rows), device=self._where), first))

    def all_columns(self) -> Mapping[str, Tensor]:
        """All columns of the split with every row, on the CPU."""
        found = {name: column.cpu() for name, column in self._columns.items()}
        for name, (values, offsets) in self._ragged.items():
            found |= {name: values.cpu(), name + SUFFIX: offsets.cpu()}
        return found


class AugmentedSplit(Feed):
    """A split whose rows are changed by chance, each by which of its comings it is."""

    def __init__(self, dataset: Dataset, split: str, device: str, changes: Sequence[Change], turns: Turns) -> None:
        super().__init__(dataset, split, device)
        self._changes, self._turns = changes, turns

    def batch(self, rows: BatchRows) -> dict[str, Tensor]:
        columns, turned = super().batch(rows), self._turned(rows)
        for change in self._changes:
            columns = change(columns, turned, rows.rows)
        return columns

    def _turned(self, rows: BatchRows) -> np.ndarray:
        """Which coming of its row each one is, whoever is missing between them."""
        if rows.stand is None:
            return self._turns(rows.position, len(rows.rows))
        turns: np.ndarray = self._turns(rows.position, int(rows.stand[-1]) + 1)[rows.stand]
        return turns


def _gathered(values: Tensor, offsets: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """The values of some rows one after another, and where each begins."""
    starts = offsets.index_select(0, rows)
    lengths = offsets.index_select(0, rows + 1) - starts
    ends = lengths.cumsum(0)
    at = torch.repeat_interleave(starts - (ends - lengths), lengths) + torch.arange(int(ends[-1]), device=rows.device)
    return values.index_select(0, at), torch.cat([ends.new_zeros(1), ends])
