"""Columns whose rows have any length, bytes among them: all values one after another, and where each row begins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from contracts.errors import InvalidInput

SUFFIX = ".offsets"
"""What the name of the column of beginnings adds to that of the values, in datasets and in batches."""

ANY_LENGTH = -1
"""What the first size of a ragged column's rows is called where columns are described."""

Columns = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Ragged:
    """`values` of all rows; row r is `values[offsets[r]:offsets[r + 1]]`. A row of bytes is an array of uint8."""

    values: np.ndarray
    offsets: np.ndarray

    def __post_init__(self) -> None:
        """Raises `InvalidInput` unless the offsets lead through all values."""
        ends = np.asarray(self.offsets)
        if ends.ndim != 1 or ends.dtype.kind not in "iu" or not len(ends):
            raise InvalidInput("the offsets of a ragged column are whole numbers", cure="Use `Ragged.of(rows)`.")
        if ends[0] != 0 or ends[-1] != len(self.values) or (np.diff(ends.astype(np.int64)) < 0).any():
            cure = "Begin at 0, end at the number of values, and never go back."
            raise InvalidInput("the offsets of a ragged column do not lead through its values", cure=cure)

    @classmethod
    def of(cls, rows: Sequence[Any]) -> Ragged:
        """From one array, or one `bytes`, per row; raises `InvalidInput` when they do not go together."""
        arrays = [_array(row) for row in rows]
        if not arrays:
            raise InvalidInput("a ragged column of no rows has no type", cure="Give at least one row.")
        kinds = {(one.dtype.str, one.shape[1:]) for one in arrays if len(one)} or {
            (arrays[0].dtype.str, arrays[0].shape[1:])
        }
        if len(kinds) > 1:
            cure = "Give every row the same dtype, and the same shape behind its length."
            raise InvalidInput(f"the rows of a ragged column differ: {sorted(map(str, kinds))}", cure=cure)
        ((dtype, shape),) = kinds
        lengths = [len(one) for one in arrays]
        filled = [one for one in arrays if len(one)]
        values = np.concatenate(filled) if filled else np.empty((0, *shape), dtype)
        return cls(values, np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def row(self, row: int) -> np.ndarray:
        """The values of one row; of a row of bytes, `.tobytes()` are the bytes."""
        return self.values[self.offsets[row] : self.offsets[row + 1]]

    def chosen(self, rows: np.ndarray) -> Ragged:
        """A column of only these rows, in the given order."""
        starts = self.offsets[rows].astype(np.int64)
        lengths = self.offsets[rows + 1].astype(np.int64) - starts
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        return Ragged(self.values[np.repeat(starts - offsets[:-1], lengths) + np.arange(offsets[-1])], offsets)

    def sound(self) -> np.ndarray:
        """For each row whether all of its values are finite."""
        if self.values.dtype.kind != "f":
            return np.ones(len(self), bool)
        broken = ~np.isfinite(self.values).reshape(len(self.values), -1).all(axis=1)
        before = np.concatenate([[0], np.cumsum(broken)])
        return np.asarray(before[self.offsets[1:]] == before[self.offsets[:-1]])


def apart(columns: Mapping[str, np.ndarray | Ragged]) -> dict[str, np.ndarray]:
    """Plain columns only: a ragged one becomes its values and its offsets."""
    found: dict[str, np.ndarray] = {}
    for name, column in columns.items():
        if isinstance(column, Ragged):
            found |= {name: column.values, name + SUFFIX: column.offsets.astype(np.int64)}
        else:
            found[name] = column
    return found


def together(columns: Columns) -> tuple[dict[str, np.ndarray], dict[str, Ragged]]:
    """The columns with one entry per row, and the ragged ones: `apart` turned round."""
    named = {name.removesuffix(SUFFIX) for name in columns if name.endswith(SUFFIX)}
    if alone := named - columns.keys():
        cure = f"Names that end with {SUFFIX!r} are ours; choose another."
        raise InvalidInput(f"the column {min(alone) + SUFFIX!r} has no values beside it", cure=cure)
    fixed = {name: one for name, one in columns.items() if name not in named and not name.endswith(SUFFIX)}
    return fixed, {name: Ragged(columns[name], columns[name + SUFFIX]) for name in columns if name in named}


def some(columns: Mapping[str, np.ndarray | Ragged], rows: np.ndarray) -> dict[str, np.ndarray | Ragged]:
    """Some rows of every column, in their order and in memory of their own."""
    return {
        name: column.chosen(rows) if isinstance(column, Ragged) else np.ascontiguousarray(column[rows])
        for name, column in columns.items()
    }


def joined(first: np.ndarray | Ragged, second: np.ndarray | Ragged) -> np.ndarray | Ragged:
    """The rows of one column, and behind them those of another of its kind."""
    if isinstance(first, Ragged) and isinstance(second, Ragged):
        offsets = np.concatenate([first.offsets, first.offsets[-1] + second.offsets[1:]])
        return Ragged(np.concatenate([first.values, second.values]), offsets)
    return np.concatenate([first, second])


def rows_of(columns: Columns) -> int:
    """How many rows plain columns hold."""
    fixed, ragged = together(columns)
    return next(chain(map(len, fixed.values()), map(len, ragged.values())))


def _array(row: Any) -> np.ndarray:
    found = np.frombuffer(row, np.uint8) if isinstance(row, bytes | bytearray | memoryview) else np.asarray(row)
    if found.dtype.kind not in "fiub" or found.ndim == 0:
        cure = "Give bytes, or arrays of floats, whole numbers or booleans."
        raise InvalidInput(f"a row of a ragged column has the dtype {found.dtype.str!r}", cure=cure)
    return found
