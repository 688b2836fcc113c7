"""Where the records of a session's file begin, so that each can be read when it is wanted and none need be kept.

The file may grow meanwhile, and whoever holds its home may change it. So who has read a record and judged it leaves its
leaf in the session's tree here, and what is read again must have that leaf. Format: `bus.records`.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import overload

from bus import records
from bus.keys import HEADER
from bus.port import StoredRecord
from bus.tree import leaf_hash, leaf_of
from contracts.errors import NotVerified

_PIECE = 1 << 18
"""Bytes of a file that are looked at in one step: while a step takes, no other thread of the process gets on."""

_BLOCK = 256
"""Records that are read at once where one after the other is wanted."""

_HEAD_FIELDS = 5

LEAF = 32
"""Bytes of a leaf's hash."""


class RecordPlaces:
    """The records of one file by their number, from 0; forty bytes for each are all that it holds."""

    def __init__(self, path: Path, session: str, upto: int | None = None) -> None:
        """Of a file that begins as the log of this session does, else `NotVerified`; `upto` as for `grow`."""
        self.path, self._title = path, records.title(session)
        self._begins = array("Q", [len(self._title)])
        if self._bytes(0, len(self._title)) != self._title:
            raise self._changed(0)
        self._leaves = bytearray()
        self.torn = 0
        self.grow(upto)

    def __len__(self) -> int:
        return len(self._begins) - 1

    def grow(self, upto: int | None = None) -> None:
        """Find the records that were written since, or only somewhat more than the first `upto`.

        `torn` tells how many bytes there are behind the last that was found.
        """
        with self.path.open("rb") as file:
            begin = file.seek(self._begins[-1])
            size, odd = os.fstat(file.fileno()).st_size, False
            while (upto is None or len(self) < upto) and (lines := file.readlines(_PIECE)):
                # A line that is not whole yet is no line.
                ends = list(accumulate(map(len, lines if lines[-1].endswith(b"\n") else lines[:-1]), initial=begin))
                # Every second line ends a record; its head may stand at the end of the piece before.
                self._begins.extend(ends[1 if odd else 2 :: 2])
                odd ^= not len(ends) % 2
                begin = ends[-1]
        self.torn = size - self._begins[-1]

    def believe(self, leaves: bytes) -> None:
        """The next records were read and judged, and these are their leaves: from now on nothing else is read there."""
        self._leaves += leaves

    def leaves(self, begin: int, end: int) -> bytes:
        """Those of the records from one number up to another, as they were left here."""
        return bytes(self._leaves[begin * LEAF : end * LEAF])

    def lines(self, begin: int, end: int) -> tuple[list[bytes], list[bytes]]:
        """Heads and bodies of the records from one number up to another, as the file has them now."""
        end = min(end, len(self))
        if begin >= end:
            return [], []
        found = self._bytes(self._begins[begin], self._begins[end]).split(b"\n")
        if len(found) != 2 * (end - begin) + 1:
            raise self._changed(begin)
        return found[0:-1:2], found[1:-1:2]

    def stored(self, begin: int, end: int) -> list[StoredRecord]:
        """The records from one number up to another; `NotVerified` where one has not the leaf that was left here."""
        heads, bodies = self.lines(begin, end)
        return [self._stored(begin + n, head, body) for n, (head, body) in enumerate(zip(heads, bodies, strict=True))]

    def _stored(self, number: int, head: bytes, body: bytes) -> StoredRecord:
        words = head.decode(errors="replace").split(" ")
        if len(words) != _HEAD_FIELDS or not words[0].isascii() or not words[0].isdigit():
            raise self._changed(number)
        stored = StoredRecord(int(words[0]), words[1], body, {} if words[3] == "-" else {HEADER: words[3]})
        known = self._leaves[number * LEAF : (number + 1) * LEAF]
        if known and leaf_hash(leaf_of(stored)) != known:
            raise self._changed(number)
        return stored

    def _bytes(self, begin: int, end: int) -> bytes:
        with self.path.open("rb", buffering=0) as file:
            return os.pread(file.fileno(), end - begin, begin)

    def _changed(self, number: int) -> NotVerified:
        return NotVerified(
            f"record {number + 1} of {self.path} is not what was read there before.",
            cure="Keep the file as evidence; `swarm doctor --repair` sets it aside, and the next start writes it anew.",
            path=str(self.path),
        )


class StoredRecords(Sequence[StoredRecord]):
    """All records of a file as they were stored, read when they are wanted."""

    def __init__(self, places: RecordPlaces, size: int) -> None:
        """The first `size` of them."""
        self._places, self._size = places, size

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[StoredRecord]:
        for begin in range(0, self._size, _BLOCK):
            yield from self._places.stored(begin, min(begin + _BLOCK, self._size))

    @overload
    def __getitem__(self, at: int) -> StoredRecord: ...

    @overload
    def __getitem__(self, at: slice) -> tuple[StoredRecord, ...]: ...

    def __getitem__(self, at: int | slice) -> StoredRecord | tuple[StoredRecord, ...]:
        place = range(self._size)[at]
        if isinstance(place, int):
            return self._places.stored(place, place + 1)[0]
        return tuple(self._places.stored(number, number + 1)[0] for number in place)
