"""A Parquet file as blocks of columns, portion by portion; it takes the memory of one page of every column."""

from __future__ import annotations

from collections.abc import Iterator
from io import BufferedReader
from typing import Any

import numpy as np

from agents.data_manager.scratch import CHUNK
from agents.data_manager.source import Tell, digest_of, extra, unchanged, unusable
from agents.data_manager.sources.cells import CELLS, Cells, NestedCell, RowBlock

_PLAIN = (str, int, float)


class ParquetFile:
    """An opened file; pyarrow reads it without threads of its own."""

    def __init__(self, file: BufferedReader, tell: Tell) -> None:
        self._arrow, parquet = extra("pyarrow", "Parquet"), extra("pyarrow.parquet", "Parquet")
        self._file, self._tell = file, tell
        self.digest = digest_of(file, tell)
        with self._readable():
            columns = parquet.read_metadata(file).num_columns
            file.seek(0)
            # Without a buffer's size a reader takes all of a row group's pages at once.
            buffer = max(1 << 12, CHUNK // max(1, columns))
            self._parquet = parquet.ParquetFile(file, pre_buffer=False, memory_map=False, buffer_size=buffer)

    def names(self) -> tuple[str, ...]:
        """The names of the columns, from the file's schema."""
        return tuple(self._parquet.schema_arrow.names)

    def rows(self) -> int:
        """Those that its last bytes declare; a few bytes can declare any number of them."""
        return int(self._parquet.metadata.num_rows)

    def blocks(self, names: tuple[str, ...]) -> Iterator[RowBlock]:
        """All rows with these columns, in blocks of bounded size."""
        rows = max(1, CELLS // len(names))
        first, total = 1, self._parquet.metadata.num_rows
        with unchanged(self._file), self._readable():
            for batch in self._parquet.iter_batches(rows, columns=list(names), use_threads=False):
                if batch.num_rows:
                    yield RowBlock(first, batch.num_rows, [self._cells(batch.column(name)) for name in names])
                    first += batch.num_rows
                    self._tell(first - 1, total)

    def _cells(self, column: Any) -> Cells:
        """Numbers as an array when none is missing; everything else as Python's values."""
        kind, arrow = column.type, self._arrow
        numeric = arrow.types.is_integer(kind) or arrow.types.is_floating(kind)
        if numeric and not column.null_count:
            found: np.ndarray = column.to_numpy(zero_copy_only=False).astype(np.float64)
            return found
        if arrow.types.is_nested(kind):
            return [NestedCell(f"a {kind}"[:60]) if valid else None for valid in column.is_valid().to_pylist()]
        if arrow.types.is_binary(kind) or arrow.types.is_large_binary(kind):
            return [None if cell is None else NestedCell("bytes") for cell in column.to_pylist()]
        if arrow.types.is_decimal(kind):
            return [None if cell is None else float(cell) for cell in column.to_pylist()]
        return [cell if cell is None or isinstance(cell, _PLAIN) else str(cell) for cell in column.to_pylist()]

    def _readable(self) -> Any:
        return _Readable(self._arrow.ArrowException)


class _Readable:
    """Turns what the library raises about a damaged file into a plain problem."""

    def __init__(self, error: type[Exception]) -> None:
        self._errors = (error, OSError)

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, self._errors) and not isinstance(error, MemoryError):
            what = str(error).splitlines()[0][:200]
            raise unusable("data.path", f"this Parquet file cannot be read: {what}", "Write it again.") from None
