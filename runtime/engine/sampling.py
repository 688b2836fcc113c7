"""The request's sampler over a dataset's training rows. What each sampler does is in its part; none needs torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np

from contracts.errors import InvalidRequest, Problem
from contracts.request import Request
from runtime.engine.dataset import Dataset
from runtime.engine.facts import Facts
from runtime.engine.registry import Registry

SPLIT = "train"


class SamplerRows(Protocol):
    """What a sampler knows of the training rows."""

    count: int

    def column(self, name: str) -> np.ndarray:
        """A column of whole numbers, one per row."""
        ...


class Sampler(Protocol):
    """An endless row of training rows, a function of the position; nothing is remembered from call to call."""

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


samplers: Registry[Callable[[Any, int, SamplerRows], Sampler]] = Registry("runtime.engine.parts.samplers")


def sampler_of(request: Request, dataset: Dataset) -> Sampler:
    """The order of training rows: a pure function of request and dataset, the same on every machine."""
    rows = TrainingRows(dataset.facts.rows[SPLIT], dataset.columns(SPLIT))
    return samplers.of(request.sampler)(request.sampler, request.reproducibility.seed, rows)


def check_sampler(request: Request, facts: Facts) -> None:
    """Raises `InvalidRequest` when the sampler goes by a column that is not there or holds no whole numbers."""
    name = getattr(request.sampler, "column", None)
    if name is None:
        return
    column = facts.columns.get(name)
    if column is None or column.shape or np.dtype(column.dtype).kind not in "iub":
        message = f"there is no column {name!r} of whole numbers, one per row"
        raise InvalidRequest([Problem("sampler.column", message, f"Columns: {', '.join(facts.columns)}.")])


class TrainingRows:
    """How many rows there are, and columns of whole numbers about them."""

    def __init__(self, count: int, columns: Mapping[str, np.ndarray]) -> None:
        self.count = count
        self._columns = columns

    def column(self, name: str) -> np.ndarray:
        """One whole number per row."""
        return np.asarray(self._columns[name])
