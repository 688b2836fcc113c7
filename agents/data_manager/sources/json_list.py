"""A file with one JSON list of objects, read object by object. Nothing can be read behind a place that is no JSON."""

from __future__ import annotations

import codecs
import json
import os
from collections.abc import Iterator
from io import BufferedReader
from typing import Any

from blake3 import blake3

from agents.data_manager.sources.blocks import RowBlock
from agents.data_manager.sources.records import SourceRow, blocks_of, names_of
from agents.data_manager.sources.whole import changed, digest_of
from agents.data_manager.table import Tell, unusable

LONGEST = 16 << 20
_PIECE = 1 << 20
_SPACE = " \t\n\r"


class JsonList:
    """An opened file, read as often as needed; a change in between is noticed."""

    def __init__(self, file: BufferedReader, tell: Tell) -> None:
        self._file, self._tell = file, tell
        self._size = os.fstat(file.fileno()).st_size
        self.digest = digest_of(file, tell)

    def names(self) -> tuple[str, ...]:
        """The names of the columns: the keys of the first objects."""
        return names_of(self._records(blake3()))

    def rows(self) -> int:
        """0: a JSON list does not declare its number of rows."""
        return 0

    def blocks(self, names: tuple[str, ...]) -> Iterator[RowBlock]:
        """Every object of the list, in blocks of bounded size."""
        hasher = blake3()
        yield from blocks_of(self._records(hasher), self.names(), names)
        if hasher.hexdigest() != self.digest:
            raise changed()

    def _records(self, hasher: blake3) -> Iterator[SourceRow]:
        text = _Text(self._pieces(hasher))
        if text.next() != "[":
            cure = "Save it as a list of objects (pandas: `orient='records'`), or name `source: jsonl`."
            raise unusable("data.path", "the file is not a JSON list", cure)
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
            raise unusable("data.path", message, "Save the file as UTF-8.") from None


class _Text:
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
                found, end = self._decoder.raw_decode(self._held, self._at)
            except (ValueError, RecursionError) as error:
                if len(self._held) - self._at > LONGEST or not self._more():
                    raise self.broken(str(getattr(error, "msg", error))) from None
                continue
            # A number that ends where the text does may go on in the next piece.
            if end == len(self._held) and self._more():
                continue
            weight, self._at = end - self._at, end
            return found, weight

    def broken(self, why: str) -> Exception:
        """The error of a text that is no list."""
        cure = "Write the file again; in JSON lines (`source: jsonl`) one broken row does not spoil the others."
        return unusable("data.path", f"not JSON near sign {self._passed + self._at + 1}: {why}", cure)

    def _more(self) -> bool:
        piece = next(self._pieces, None)
        if piece is None:
            return False
        self._held, self._passed, self._at = self._held[self._at :] + piece, self._passed + self._at, 0
        return True
