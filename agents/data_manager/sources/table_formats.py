"""Files of named columns by their format, read in blocks: CSV, one JSON object per line, one JSON list, Parquet."""

import codecs
import csv
import itertools
import json
import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from io import BufferedReader
from typing import Any, NamedTuple

import numpy as np
import orjson
from blake3 import blake3

from agents.data_manager.scratch import CHUNK
from agents.data_manager.source import Tell, changed, digest_of, import_extra, unchanged, unusable
from agents.data_manager.sources.cells import CELLS, Cells, NestedCell, RowBlock
from runtime.model.rows import delimiter_of

LONGEST = 16 << 20
"""Bytes of the longest line or JSON value that is read."""

FIRST = 1000
"""So many objects say what the columns are: the keys that at least half of them have."""

_PLACE = "data.path"
_TOLD, _PIECE = 1 << 22, 1 << 20
_SPACE = " \t\n\r"
_NESTED = (list, dict)


class TextTable:
    """An opened text file, read as often as needed; a change in between is noticed."""

    def __init__(self, file: BufferedReader, tell: Tell) -> None:
        self._file, self._tell = file, tell
        self._size = os.fstat(file.fileno()).st_size
        self.digest = digest_of(file, tell)

    def rows(self) -> int:
        """0: a text file does not declare its number of rows."""
        return 0

    def _refuse_changed(self, hasher: blake3) -> None:
        """Raise when the bytes that were read are no longer those of the digest."""
        if hasher.hexdigest() != self.digest:
            raise changed()


class CsvText(TextTable):
    """An opened CSV file. What its cells mean is not decided here."""

    _read = 0

    def names(self) -> tuple[str, ...]:
        """The names of the columns: the cells of the first line."""
        first = next(self._lines(), "")
        return tuple(name.strip() for name in next(csv.reader([first], delimiter=delimiter_of(first)), []))

    def blocks(self, names: tuple[str, ...]) -> Iterator[RowBlock]:
        """Every row below the header that is not blank."""
        header = self.names()
        chosen = [header.index(name) for name in names]
        first, begun = 1, 0
        rows: list[list[str]] = []
        lines: list[int] = []
        for line, cells in self._rows():
            rows.append(cells)
            lines.append(line)
            if len(rows) * len(header) >= CELLS or self._read - begun >= CHUNK:
                yield _csv_block(first, rows, lines, len(header), chosen)
                first, rows, lines, begun = first + len(rows), [], [], self._read
        if rows:
            yield _csv_block(first, rows, lines, len(header), chosen)

    def _rows(self) -> Iterator[tuple[int, list[str]]]:
        """Lines and their cells; raises when the bytes are no longer those of the digest, or end inside quotes."""
        hasher = blake3()
        lines = self._lines(hasher)
        header = next(lines, "")
        delimiter, taken, last = delimiter_of(header), list[str](), list[str]()
        reader = csv.reader(_noted(itertools.chain([header], lines), taken), delimiter=delimiter)
        next(reader, None)
        taken.clear()
        try:
            for cells in reader:
                last = taken[:]
                taken.clear()
                if cells:
                    yield reader.line_num, cells
        except csv.Error as error:
            cure = "Check the quotes around that line."
            raise unusable(_PLACE, f"line {reader.line_num} is no CSV: {error}", cure) from None
        self._refuse_changed(hasher)
        try:
            # The reader itself takes the end of the file for the end of a quote.
            list(csv.reader(last, delimiter=delimiter, strict=True))
        except csv.Error as error:
            if "unexpected end of data" in str(error):
                message = f"the quote that opens in line {reader.line_num - len(last) + 1} is never closed"
                cure = "Close it, or write it twice where it belongs to a text."
                raise unusable(_PLACE, message, cure) from None

    def _lines(self, hasher: blake3 | None = None) -> Iterator[str]:
        self._file.seek(0)
        number, told, self._read = 0, 0, 0
        while raw := self._file.readline(LONGEST + 1):
            number += 1
            self._read += len(raw)
            if self._read - told > _TOLD:
                told = self._read
                self._tell(told, self._size)
            if len(raw) > LONGEST:
                message = f"line {number} has more than {LONGEST} bytes"
                raise unusable(_PLACE, message, "Save the table with one row per line.")
            if hasher is not None:
                hasher.update(raw)
            try:
                yield raw.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                message = f"line {number} is not UTF-8: byte {raw[error.start]:#04x} at {error.start}"
                raise unusable(_PLACE, message, "Save the file as UTF-8.") from None


def _noted(lines: Iterator[str], taken: list[str]) -> Iterator[str]:
    """The same lines, each put down as it is taken."""
    for line in lines:
        taken.append(line)
        yield line


def _csv_block(first: int, rows: list[list[str]], lines: list[int], width: int, chosen: list[int]) -> RowBlock:
    broken = {at: f"{len(row)} cells, the header has {width}" for at, row in enumerate(rows) if len(row) != width}
    for at in broken:
        rows[at] = [""] * width
    columns = list(zip(*rows, strict=True))
    return RowBlock(first, len(rows), [columns[at] for at in chosen], broken, lines)


class SourceRow(NamedTuple):
    """One row: the object (or why there is none), the line it ends in, and about how many bytes it took."""

    value: Mapping[str, object] | str
    line: int
    weight: int


class JsonTable(TextTable, ABC):
    """An opened file of JSON objects: their keys are its columns; what is no such object is a broken row."""

    def names(self) -> tuple[str, ...]:
        """The keys that at least half of the first objects have, in the order in which they first appear."""
        counts: Counter[str] = Counter()
        rows = 0
        for record in itertools.islice(self._records(blake3()), FIRST):
            if not isinstance(record.value, str):
                rows += 1
                counts.update(dict.fromkeys(record.value, 1))
        return tuple(name for name, count in counts.items() if 2 * count >= rows)

    def blocks(self, names: tuple[str, ...]) -> Iterator[RowBlock]:
        """Every row, in blocks of bounded size; an unknown key makes a row corrupt."""
        known, hasher = self.names(), blake3()
        first, weight = 1, 0
        rows: list[SourceRow] = []
        for record in self._records(hasher):
            rows.append(record)
            weight += record.weight
            if len(rows) * len(known) >= CELLS or weight >= CHUNK:
                yield _json_block(first, rows, known, names)
                first, rows, weight = first + len(rows), [], 0
        if rows:
            yield _json_block(first, rows, known, names)
        self._refuse_changed(hasher)

    @abstractmethod
    def _records(self, hasher: blake3) -> Iterator[SourceRow]:
        """All rows of the file, whose bytes go through the hasher."""


def _json_block(first: int, rows: list[SourceRow], known: Sequence[str], names: Sequence[str]) -> RowBlock:
    allowed, broken, objects = set(known), {}, []
    for at, row in enumerate(rows):
        value: Mapping[str, object] = {}
        if isinstance(row.value, str):
            broken[at] = row.value
        elif not row.value.keys() <= allowed:
            strange = next(key for key in row.value if key not in allowed)
            broken[at] = f"the key {strange[:40]!r} is not a column: most rows lack it"
        else:
            value = row.value
        objects.append(value)
    columns: list[Cells] = []
    for name in names:
        cells = [value.get(name) for value in objects]
        if set(map(type, cells)) & set(_NESTED):
            cells = [NestedCell(f"a {type(cell).__name__}") if isinstance(cell, _NESTED) else cell for cell in cells]
        columns.append(cells)
    lines = [row.line for row in rows] if rows[0].line else []
    return RowBlock(first, len(rows), columns, broken, lines)


class JsonLines(JsonTable):
    """An opened file with one JSON object per line; blank lines are skipped."""

    def _records(self, hasher: blake3) -> Iterator[SourceRow]:
        self._file.seek(0)
        read, told, line = 0, 0, 0
        while lines := self._file.readlines(1 << 20):
            hasher.update(b"".join(lines))
            for raw in lines:
                line += 1
                read += len(raw)
                if len(raw) > LONGEST:
                    message = f"line {line} has more than {LONGEST} bytes"
                    raise unusable(_PLACE, message, "Save the table with one object per line.")
                if not raw.isspace():
                    yield SourceRow(_object(raw.removeprefix(b"\xef\xbb\xbf") if line == 1 else raw), line, len(raw))
            if read - told > _TOLD:
                told = read
                self._tell(read, self._size)


def _object(raw: bytes) -> Any:
    """The object in a line, or why there is none."""
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        try:
            # Only Python's own reader takes the NaN and Infinity that Python's own writer writes.
            value = json.loads(raw)
        except (ValueError, RecursionError):
            return f"this is not JSON: {error.msg}"
    return value if isinstance(value, dict) else f"{type(value).__name__} is not an object"


class JsonList(JsonTable):
    """An opened file with one JSON list. Nothing can be read behind a place that is no JSON."""

    def _records(self, hasher: blake3) -> Iterator[SourceRow]:
        text = _JsonText(self._pieces(hasher))
        if text.next() != "[":
            cure = "Save it as a list of objects (pandas: `orient='records'`), or name `source: jsonl`."
            raise unusable(_PLACE, "the file is not a JSON list", cure)
        sign = text.take()
        while sign != "]" and not (sign == "[" and text.next() == "]"):
            if sign not in ("[", ","):
                raise text.broken("a comma or the end of the list should be here")
            text.next()
            value, weight = text.value()
            yield SourceRow(value if isinstance(value, dict) else f"{type(value).__name__} is not an object", 0, weight)
            text.next()
            sign = text.take()
        if sign == "[":
            text.take()
        if text.next():
            raise text.broken("something follows the list")

    def _pieces(self, hasher: blake3) -> Iterator[str]:
        decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._file.seek(0)
        read = 0
        try:
            while piece := self._file.read(_PIECE):
                hasher.update(piece)
                read += len(piece)
                self._tell(read, self._size)
                yield decoder.decode(piece)
            yield decoder.decode(b"", final=True)
        except UnicodeDecodeError as error:
            message = f"the file is not UTF-8 near byte {max(0, read - _PIECE) + error.start}"
            raise unusable(_PLACE, message, "Save the file as UTF-8.") from None


class _JsonText:
    """Text that arrives in pieces, of which only what is not read yet is held."""

    def __init__(self, pieces: Iterator[str]) -> None:
        self._pieces = pieces
        self._held, self._at, self._passed = "", 0, 0
        self._decoder = json.JSONDecoder()

    def next(self) -> str:
        """The next sign that is not space, not taken; empty at the end."""
        while True:
            while self._at < len(self._held) and self._held[self._at] in _SPACE:
                self._at += 1
            if self._at < len(self._held) or not self._more():
                return self._held[self._at : self._at + 1]

    def take(self) -> str:
        """Read and return the next character; empty at the end."""
        self._at += 1
        return self._held[self._at - 1 : self._at]

    def value(self) -> tuple[Any, int]:
        """The next value, and how many signs it has."""
        while True:
            try:
                value, end = self._decoder.raw_decode(self._held, self._at)
            except (ValueError, RecursionError) as error:
                if len(self._held) - self._at > LONGEST or not self._more():
                    raise self.broken(str(getattr(error, "msg", error))) from None
                continue
            # A number that ends where the text does may go on in the next piece.
            if end == len(self._held) and self._more():
                continue
            weight, self._at = end - self._at, end
            return value, weight

    def broken(self, why: str) -> Exception:
        """The error of a text that is no list."""
        cure = "Write the file again; in JSON lines (`source: jsonl`) one broken row does not spoil the others."
        return unusable(_PLACE, f"not JSON near sign {self._passed + self._at + 1}: {why}", cure)

    def _more(self) -> bool:
        piece = next(self._pieces, None)
        if piece is None:
            return False
        self._held, self._passed, self._at = self._held[self._at :] + piece, self._passed + self._at, 0
        return True


_PLAIN = (str, int, float)


class ParquetFile:
    """An opened file; pyarrow reads it without threads of its own."""

    def __init__(self, file: BufferedReader, tell: Tell) -> None:
        self._arrow, parquet = import_extra("pyarrow", "Parquet"), import_extra("pyarrow.parquet", "Parquet")
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
            numbers: np.ndarray = column.to_numpy(zero_copy_only=False).astype(np.float64)
            return numbers
        if arrow.types.is_nested(kind):
            return [NestedCell(f"a {kind}"[:60]) if valid else None for valid in column.is_valid().to_pylist()]
        if arrow.types.is_binary(kind) or arrow.types.is_large_binary(kind):
            return [None if cell is None else NestedCell("bytes") for cell in column.to_pylist()]
        if arrow.types.is_decimal(kind):
            return [None if cell is None else float(cell) for cell in column.to_pylist()]
        return [cell if cell is None or isinstance(cell, _PLAIN) else str(cell) for cell in column.to_pylist()]

    def _readable(self) -> Any:
        return _ReadableParquet(self._arrow.ArrowException)


class _ReadableParquet:
    """Turns what the library raises about a damaged file into a plain problem."""

    def __init__(self, error: type[Exception]) -> None:
        self._errors = (error, OSError)

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, self._errors) and not isinstance(error, MemoryError):
            what = str(error).splitlines()[0][:200]
            raise unusable("data.path", f"this Parquet file cannot be read: {what}", "Write it again.") from None
