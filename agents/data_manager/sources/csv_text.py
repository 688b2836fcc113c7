"""A CSV file as blocks of cells: encoding, delimiter, header. What cells mean is not decided here."""

from __future__ import annotations

import csv
import itertools
import os
from collections.abc import Iterator
from io import BufferedReader

from blake3 import blake3

from agents.data_manager.scratch import CHUNK
from agents.data_manager.sources.blocks import CELLS, RowBlock
from agents.data_manager.sources.whole import changed, digest_of
from agents.data_manager.table import Tell, unusable
from runtime.model.cells import delimiter_of

LONGEST = 16 << 20
_PIECE = 1 << 22
_PLACE = "data.path"


class CsvText:
    """An opened file, read as often as needed; a change in between is noticed."""

    def __init__(self, file: BufferedReader, tell: Tell) -> None:
        self._file = file
        self._tell = tell
        self._size = os.fstat(file.fileno()).st_size
        self._read = 0
        self.digest = digest_of(file, tell)

    def names(self) -> tuple[str, ...]:
        """The names of the columns: the cells of the first line."""
        first = next(self._lines(), "")
        return tuple(name.strip() for name in next(csv.reader([first], delimiter=delimiter_of(first)), []))

    def rows(self) -> int:
        """0: a CSV file does not declare its number of rows."""
        return 0

    def blocks(self, names: tuple[str, ...]) -> Iterator[RowBlock]:
        """Every row below the header that is not blank."""
        found = self.names()
        chosen = [found.index(name) for name in names]
        first, begun = 1, 0
        rows: list[list[str]] = []
        lines: list[int] = []
        for line, cells in self._rows():
            rows.append(cells)
            lines.append(line)
            if len(rows) * len(found) >= CELLS or self._read - begun >= CHUNK:
                yield _block(first, rows, lines, len(found), chosen)
                first, rows, lines, begun = first + len(rows), [], [], self._read
        if rows:
            yield _block(first, rows, lines, len(found), chosen)

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
        if hasher.hexdigest() != self.digest:
            raise changed()
        if _ends_inside_quotes(last, delimiter):
            message = f"the quote that opens in line {reader.line_num - len(last) + 1} is never closed"
            raise unusable(_PLACE, message, "Close it, or write it twice where it belongs to a text.")

    def _lines(self, hasher: blake3 | None = None) -> Iterator[str]:
        self._file.seek(0)
        number, told, self._read = 0, 0, 0
        while raw := self._file.readline(LONGEST + 1):
            number += 1
            self._read += len(raw)
            if self._read - told > _PIECE:
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


def _ends_inside_quotes(row: list[str], delimiter: str) -> bool:
    """Whether the lines of a row end before its quote does; the reader itself takes that for its end."""
    try:
        list(csv.reader(row, delimiter=delimiter, strict=True))
    except csv.Error as error:
        return "unexpected end of data" in str(error)
    return False


def _block(first: int, rows: list[list[str]], lines: list[int], width: int, chosen: list[int]) -> RowBlock:
    broken = {at: f"{len(row)} cells, the header has {width}" for at, row in enumerate(rows) if len(row) != width}
    for at in broken:
        rows[at] = [""] * width
    columns = list(zip(*rows, strict=True))
    return RowBlock(first, len(rows), [columns[at] for at in chosen], broken, lines)
