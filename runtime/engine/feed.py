"""Turns row numbers into batches: columns of a memory-mapped split as tensors on the device. It chooses no rows."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from runtime.engine.dataset import Dataset

RESIDENT = 1 << 30


class Feed:
    """One split; small enough, it lives on the device, else rows travel batch by batch (the bits are the same)."""

    def __init__(self, dataset: Dataset, split: str, device: str) -> None:
        columns = dataset.columns(split)
        self.rows = dataset.facts.rows[split]
        self._device = torch.device(device)
        tensors = {name: torch.from_numpy(np.asarray(column)) for name, column in columns.items()}
        resident = sum(one.nbytes for one in tensors.values()) <= RESIDENT
        self._columns = {name: one.to(self._device) if resident else one for name, one in tensors.items()}
        self._where = self._device if resident else torch.device("cpu")
        self._moves = self._where != self._device

    def rows_tensors(self, rows: np.ndarray) -> tuple[Tensor, ...]:
        """The rows of several batches, given as (batches, rows per batch), ready for `batch`."""
        return torch.from_numpy(rows).to(self._where).unbind(0)

    def batch(self, rows: Tensor) -> dict[str, Tensor]:
        """The columns of some rows, freshly gathered and aligned."""
        found = {name: column.index_select(0, rows) for name, column in self._columns.items()}
        return {name: one.to(self._device) for name, one in found.items()} if self._moves else found

    def slice(self, first: int, last: int) -> dict[str, Tensor]:
        """The columns of rows in a row."""
        return self.batch(torch.arange(first, min(last, self.rows), device=self._where))

    def all_columns(self) -> Mapping[str, Tensor]:
        """Every row, on the CPU."""
        return {name: column.cpu() for name, column in self._columns.items()}
