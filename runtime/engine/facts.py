"""What a dataset says about itself, small enough to build a model from. No rows are kept here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from runtime.engine.ragged import Ragged, apart, rows_of, together

Kind = Literal["classification", "regression", "sequences", "other"]
CHUNK = 1 << 18
"""How many numbers are looked at together, so that statistics of any split fit into memory."""

_NAMED = {"classification": "y", "sequences": "x"}
"""The column whose values are numbers of classes or of tokens, from 0."""


@dataclass(frozen=True)
class Column:
    """One column: numpy's name of the dtype (`<f4`) and the shape of one row; -1 means any length."""

    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Facts:
    """Task, shapes and the training split's statistics; `outputs` is how many numbers a model answers per row or token.

    Images have shape (channels, height, width) and one mean and scale per channel; plain features one per feature;
    tokens have none. `counts` are the rows of each class; empty where they were not counted.
    """

    task: Kind
    rows: Mapping[str, int]
    columns: Mapping[str, Column]
    outputs: int = 1
    labels: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    mean: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()
    target_mean: float = 0.0
    target_scale: float = 1.0
    extra: Mapping[str, object] = field(default_factory=dict)
    counts: tuple[int, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one row of the column `x`."""
        return self.columns["x"].shape

    @property
    def classes(self) -> int:
        """How many classes there are; 0 when the task is not classification."""
        return self.outputs if self.task == "classification" else 0

    def as_json(self) -> dict[str, object]:
        """Plain data; `Facts.from_json` gives the same facts back."""
        whole = asdict(self)
        # Datasets were named by their facts before there were counts, and keep their names.
        return whole if self.counts else {name: one for name, one in whole.items() if name != "counts"}

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Facts:
        """Facts from their JSON form."""
        columns = {name: Column(one["dtype"], tuple(one["shape"])) for name, one in raw["columns"].items()}
        lists = {name: tuple(raw[name]) for name in ("labels", "features", "mean", "scale")}
        lists["counts"] = tuple(raw.get("counts", ()))
        return cls(**{**raw, **lists, "columns": columns})


def describe(
    splits: Mapping[str, Mapping[str, np.ndarray | Ragged]],
    task: Kind,
    *,
    labels: Sequence[str] = (),
    features: Sequence[str] = (),
    extra: Mapping[str, object] | None = None,
    counted: bool = False,
) -> Facts:
    """The facts of prepared splits; statistics come from the training split alone, so nothing leaks.

    With `counted` they also say how many rows each class has, by which losses can weigh classes.
    """
    whole = {name: apart(split) for name, split in splits.items()}
    train, ragged = together(whole["train"])
    columns = {name: Column(column.dtype.str, column.shape[1:]) for name, column in train.items()}
    columns |= {name: Column(one.values.dtype.str, (-1, *one.values.shape[1:])) for name, one in ragged.items()}
    rows = {name: rows_of(split) for name, split in whole.items()}
    mean, scale = _spread(train["x"]) if "x" in train and task != "sequences" else ((), ())
    target_mean, target_scale = 0.0, 1.0
    outputs = 1
    counts: tuple[int, ...] = ()
    if task in _NAMED:
        outputs = len(labels) or 1 + max(int(split[_NAMED[task]].max(initial=0)) for split in whole.values())
    elif task == "regression":
        (target_mean,), (target_scale,) = _spread(train["y"].reshape(-1, 1))
    if task == "classification" and counted:
        counts = tuple(np.bincount(train["y"], minlength=outputs).tolist())
    names = tuple(labels), tuple(features)
    return Facts(task, rows, columns, outputs, *names, mean, scale, target_mean, target_scale, extra or {}, counts)


def _spread(column: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation per channel of images, else per feature; what is constant has scale 1."""
    width = column.shape[1] if column.ndim == 4 else int(np.prod(column.shape[1:]))
    total, squares, count = np.zeros(width), np.zeros(width), 0
    rows = max(1, CHUNK // max(1, int(np.prod(column.shape[1:]))))
    for first in range(0, len(column), rows):
        chunk = column[first : first + rows]
        values = chunk.astype(np.float64).reshape(len(chunk), width, -1)
        total += values.sum(axis=(0, 2))
        squares += np.square(values).sum(axis=(0, 2))
        count += len(chunk) * values.shape[2]
    mean = total / count
    deviation = np.sqrt(np.maximum(squares / count - np.square(mean), 0.0))
    scale = np.where(deviation > 1e-6 * np.maximum(np.abs(mean), 1.0), deviation, 1.0)
    return tuple(mean.tolist()), tuple(scale.tolist())
