"""One column of a dataset as a file, written piece by piece and digested as it grows. It knows no other column."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from blake3 import blake3

from contracts.errors import InvalidInput

PIECE = 1 << 22


@dataclass(frozen=True)
class StoredColumn:
    """One column of one split as it lies on disk; `pieces` are the digests of its 4 MiB pieces, in order."""

    dtype: str
    shape: tuple[int, ...]
    file: str
    pieces: tuple[str, ...]


class ColumnFile:
    """A column that is being written: rows are appended in any portions, and the same rows give the same bytes."""

    def __init__(self, directory: Path, file: str, dtype: np.dtype, shape: tuple[int, ...]) -> None:
        if dtype.hasobject or dtype.kind not in "fiub":
            cure = "Use floats, integers or booleans."
            raise InvalidInput(f"the column {file!r} has the dtype {dtype.str!r}", cure=cure)
        self._dtype, self._shape, self._name = dtype.newbyteorder("<"), shape, file
        self._file = (directory / file).open("wb")
        self._hasher, self._hashed = blake3(), 0
        self._pieces: list[str] = []
        self._rows = 0

    def append(self, rows: np.ndarray) -> None:
        """Write some more rows behind those that are there."""
        data = np.ascontiguousarray(rows, self._dtype).reshape(-1).view(np.uint8).data
        self._file.write(data)
        self._rows += len(rows)
        while len(data):
            taken = data[: PIECE - self._hashed]
            self._hasher.update(taken)
            self._hashed += len(taken)
            data = data[len(taken) :]
            if self._hashed == PIECE:
                self._next_piece()

    def finished(self) -> StoredColumn:
        """The column as it lies on disk, for good."""
        if self._hashed:
            self._next_piece()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        return StoredColumn(self._dtype.str, (self._rows, *self._shape), self._name, tuple(self._pieces))

    def _next_piece(self) -> None:
        self._pieces.append(str(self._hasher.hexdigest()))
        self._hasher, self._hashed = blake3(), 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
