"""Room on the disk for rows that memory may not hold, while a dataset is prepared. Nothing here is kept."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO

import numpy as np

from contracts.errors import InvalidRequest, Problem
from runtime.jobs import resources

CHUNK = 1 << 20
"""About how many bytes of rows are held in memory at a time."""

LEFT = 256 << 20
"""Bytes of disk that a preparation leaves to others, once it has taken more than that itself."""


class Scratch:
    """Columns that grow in the files of one directory."""

    def __init__(self, directory: Path, files: ExitStack) -> None:
        self._directory, self._files = directory, files
        self._count = 0

    def column(self, dtype: np.dtype | type, shape: tuple[int, ...] = ()) -> GrowingColumn:
        """A new column with rows of this type and shape."""
        path = self.file()
        return GrowingColumn(path, self._files.enter_context(path.open("wb")), np.dtype(dtype), shape)

    def opened(self) -> IO[bytes]:
        """A new file to write and read."""
        return self._files.enter_context(self.file().open("w+b"))

    def refuse_beyond(self, what: str, place: str, *, disk: int, held: int) -> None:
        """Raise `InvalidRequest`, naming `place` in the request, when so many bytes do not fit: see `room`."""
        resources.refuse_beyond(what, place, self._directory, disk=disk, held=held)

    def leave_room(self, done: int, total: int) -> None:
        """Raise `InvalidRequest` when what was kept so far leaves others no room: not every file says its rows."""
        free = shutil.disk_usage(self._directory).free
        if free >= LEFT or (kept := sum(file.stat().st_size for file in self._directory.iterdir())) <= LEFT:
            return
        message = (
            f"{done} of {total} are read and take {resources.gib(kept)} of disk, and {resources.gib(free)} are left"
        )
        raise InvalidRequest([Problem("data", message, "Ask for less, or free some disk.")])

    def file(self) -> Path:
        """A file name that no other process uses."""
        self._count += 1
        return self._directory / f"{self._count}"


class GrowingColumn:
    """A column to which rows are appended, and which is an array when it is done."""

    def __init__(self, path: Path, file: IO[bytes], dtype: np.dtype, shape: tuple[int, ...]) -> None:
        self._path, self._file, self._dtype, self._shape = path, file, dtype, shape
        self.size = 0

    def append(self, rows: np.ndarray) -> None:
        """Put rows behind those that are there."""
        self._file.write(np.ascontiguousarray(rows, self._dtype).reshape(-1).view(np.uint8).data)
        self.size += len(rows)

    def done(self) -> np.ndarray:
        """All rows that were appended, memory-mapped and read-only."""
        self._file.close()
        shape = (self.size, *self._shape)
        if 0 in shape:
            return np.empty(shape, self._dtype)
        return np.memmap(self._path, self._dtype, "r", shape=shape)


def row_bytes(column: np.ndarray) -> int:
    """How many bytes a row of a column takes."""
    return column.dtype.itemsize * math.prod(column.shape[1:])


def portions(column: np.ndarray, size: int = CHUNK) -> Iterator[slice]:
    """The rows of a column in portions of about `size` bytes."""
    step = max(1, size // max(1, row_bytes(column)))
    return (slice(first, min(first + step, len(column))) for first in range(0, len(column), step))
