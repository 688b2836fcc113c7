"""A file with one JSON object per line. A line that is none is a broken row, and the next one is read."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from io import BufferedReader
from typing import Any

import orjson
from blake3 import blake3

from agents.data_manager.sources.blocks import RowBlock
from agents.data_manager.sources.records import SourceRow, blocks_of, names_of
from agents.data_manager.sources.whole import changed, digest_of
from agents.data_manager.table import Tell, unusable

LONGEST = 16 << 20
_PIECE = 1 << 22


class JsonLines:
    """An opened file, read as often as needed; a change in between is noticed."""

    def __init__(self, file: BufferedReader, tell: Tell) -> None:
        self._file, self._tell = file, tell
        self._size = os.fstat(file.fileno()).st_size
        self.digest = digest_of(file, tell)

    def names(self) -> tuple[str, ...]:
        """The names of the columns: the keys of the first objects."""
        return names_of(self._records(blake3()))

    def rows(self) -> int:
        """0: a file of lines does not declare its number of rows."""
        return 0

    def blocks(self, names: tuple[str, ...]) -> Iterator[RowBlock]:
        """Every line that is not blank, in blocks of bounded size."""
        hasher = blake3()
        yield from blocks_of(self._records(hasher), self.names(), names)
        if hasher.hexdigest() != self.digest:
            raise changed()

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
                    raise unusable("data.path", message, "Save the table with one object per line.")
                if not raw.isspace():
                    yield SourceRow(_object(raw.removeprefix(b"\xef\xbb\xbf") if line == 1 else raw), line, len(raw))
            if read - told > _PIECE:
                told = read
                self._tell(read, self._size)


def _object(raw: bytes) -> Any:
    """The object in a line, or why there is none."""
    try:
        found = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        try:
            # Only Python's own reader takes the NaN and Infinity that Python's own writer writes.
            found = json.loads(raw)
        except (ValueError, RecursionError):
            return f"this is not JSON: {error.msg}"
    return found if isinstance(found, dict) else f"{type(found).__name__} is not an object"
