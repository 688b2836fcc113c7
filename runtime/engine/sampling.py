"""The request's sampler over a dataset's training rows. What each sampler does is in its part."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from contracts.errors import InvalidRequest, Problem
from contracts.request import Request
from runtime.engine import kinds
from runtime.engine.dataset import Dataset
from runtime.engine.facts import Facts
from runtime.engine.kinds import Sampler

SPLIT = "train"


def sampler_of(request: Request, dataset: Dataset) -> Sampler:
    """Which training row stands where; the same for everybody who has the request and the dataset."""
    rows = TrainingRows(dataset.facts.rows[SPLIT], dataset.columns(SPLIT))
    return kinds.samplers.of(request.sampler)(request.sampler, request.reproducibility.seed, rows)


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
