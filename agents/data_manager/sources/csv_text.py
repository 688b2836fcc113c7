"""A CSV file as numbered rows of cells: encoding, delimiter, header. What cells mean is not decided here."""

from __future__ import annotations

import csv
import difflib
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedReader
from typing import NamedTuple

from blake3 import blake3

from agents.data_manager.table import Tell, unusable
from contracts.errors import InvalidRequest, Problem

LONGEST = 16 << 20
DELIMITERS = ",;\t|"
_PIECE = 1 << 22
_PLACE = "data.path"


class Row(NamedTuple):
    """One row below the header: its number from 1, the line it ends in, its cells."""

    number: int
    line: int
    cells: list[str]

    def __str__(self) -> str:
        return f"row {self.number} (line {self.line})"


@dataclass(frozen=True)
class Header:
    """The names of the columns, which of them is the target, and what separates cells."""

    names: tuple[str, ...]
    target: int
    delimiter: str

    @property
    def features(self) -> tuple[int, ...]:
        """The places of all other columns."""
        return tuple(at for at in range(len(self.names)) if at != self.target)


class CsvText:
    """An opened file, read as often as needed; a change in between is noticed."""

    def __init__(self, file: BufferedReader, tell: Tell) -> None:
        self._file = file
        self._tell = tell
        self._size = os.fstat(file.fileno()).st_size
        self.digest = self._digest()

    def header(self, target: str) -> Header:
        """The first line; raises `InvalidRequest` with everything that is wrong with it."""
        first = next(self._lines(), "")
        counts = {mark: first.count(mark) for mark in DELIMITERS}
        delimiter = max(DELIMITERS, key=lambda mark: counts[mark])
        names = tuple(name.strip() for name in next(csv.reader([first], delimiter=delimiter), []))
        if problems := [*_header_problems(names, target)]:
            raise InvalidRequest(problems)
        return Header(names, names.index(target), delimiter)

    def rows(self, header: Header) -> Iterator[Row]:
        """Every row below the header that is not blank; raises when the bytes are no longer those of the digest."""
        hasher = blake3()
        reader = csv.reader(self._lines(hasher), delimiter=header.delimiter)
        next(reader, None)
        number = 0
        try:
            for cells in reader:
                if cells:
                    number += 1
                    yield Row(number, reader.line_num, cells)
        except csv.Error as error:
            cure = "Check the quotes around that line."
            raise unusable(_PLACE, f"line {reader.line_num} is no CSV: {error}", cure) from None
        if hasher.hexdigest() != self.digest:
            raise unusable(_PLACE, "the file changed while it was read", "Finish writing it, then ask again.")

    def _lines(self, hasher: blake3 | None = None) -> Iterator[str]:
        self._file.seek(0)
        number, read, told = 0, 0, 0
        while raw := self._file.readline(LONGEST + 1):
            number += 1
            read += len(raw)
            if read - told > _PIECE:
                told = read
                self._tell(read, self._size)
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

    def _digest(self) -> str:
        hasher = blake3()
        while piece := self._file.read(_PIECE):
            hasher.update(piece)
        return str(hasher.hexdigest())


def _header_problems(names: tuple[str, ...], target: str) -> Iterator[Problem]:
    if len(names) < 2:
        cure = "Give it a first line with the columns' names, and at least two columns."
        yield Problem(_PLACE, f"the table has {len(names)} columns", cure)
        return
    for at, name in enumerate(names, 1):
        if not name:
            cure = "Name it or remove it (pandas writes such a column without `index=False`)."
            yield Problem(_PLACE, f"column {at} has no name", cure)
    for name, count in Counter(names).items():
        if name and count > 1:
            yield Problem(_PLACE, f"{count} columns are called {name!r}", "Give each column a name of its own.")
    if target not in names:
        near = difflib.get_close_matches(target, names, 1)
        cure = f"Did you mean {near[0]!r}?" if near else f"Columns: {', '.join(names[:20])}."
        yield Problem("data.target", f"there is no column {target!r}", cure)
