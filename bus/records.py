"""The format of the file copy of a session's log, and its records read: all in order, or single ones by their number.

Canonical (the same records give the same bytes), self-framing, and readable with `less`:

    stigmergy/log/1 SESSION
    SEQ SUBJECT LENGTH SIGNATURE CHECK      signature `-` where there is none; check = SHA-256 of "SEQ SUBJECT LENGTH
    BODY                                    SIGNATURE", newline, body; LENGTH counts the body's bytes

Only framing is checked; whether a record is a fact is for `bus.admission`. Nothing is opened for writing here. Where
records are read by number (`RecordPlaces`) none is kept: the file may grow meanwhile, and whoever holds its home may
change it. So a reader that has judged a record leaves its leaf in the session's tree, and what is read again must have
that leaf.
"""

import hashlib
import os
import re
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import overload

from bus.keys import HEADER
from bus.port import StoredRecord
from bus.tree import leaf_hash, leaf_of
from contracts.errors import InvalidInput, NotFound, NotVerified

_HEAD = re.compile(rb"([1-9][0-9]{0,18}) ([!-~]+) (0|[1-9][0-9]{0,9}) ([!-~]+) ([0-9a-f]{64})\n")
_NONE = "-"
_REACH = 16_384
"""Bytes of a file's end that mostly hold its last record."""

_TITLE = re.compile(rb"stigmergy/log/1 ([a-z0-9-]+)\n")


def title(session: str) -> bytes:
    """The first line of a session's file."""
    return f"stigmergy/log/1 {session}\n".encode()


def frame(stored: StoredRecord) -> bytes:
    """The bytes of one record in the file; of the headers only the signature is kept."""
    signature = stored.headers.get(HEADER, _NONE)
    head = f"{stored.seq} {stored.subject} {len(stored.body)} {signature}".encode()
    framed = b"%b %b\n%b\n" % (head, _check(head, stored.body), stored.body)
    if not _HEAD.match(framed) or stored.headers.get(HEADER) == _NONE:
        raise InvalidInput(f"message {stored.seq} cannot be written to a log: {head!r}.")
    return framed


def _check(head: bytes, body: bytes) -> bytes:
    return hashlib.sha256(b"%b\n%b" % (head, body)).hexdigest().encode()


def _unframe(data: bytes, start: int) -> tuple[StoredRecord, int] | None:
    """The record that begins here and where it ends; None when there is no whole and sound one."""
    match = _HEAD.match(data, start)
    if match is None:
        return None
    seq, subject, length, signature, check = match.groups()
    end = match.end() + int(length)
    body = data[match.end() : end]
    # The separator and the check's own column are outside the hash; the pattern leaves them only one spelling.
    if data[end : end + 1] != b"\n" or _check(data[start : match.start(5) - 1], body) != check:
        return None
    headers = {} if signature == _NONE.encode() else {HEADER: signature.decode()}
    return StoredRecord(int(seq), subject.decode(), body, headers), end + 1


def newest(path: Path) -> StoredRecord | None:
    """The last sound record of a file, read from its end; None when there is none."""
    size = path.stat().st_size
    reach = _REACH
    with path.open("rb") as file:
        while True:
            file.seek(max(0, size - reach))
            data = file.read()
            for head in reversed(list(_HEAD.finditer(data))):
                if framed := _unframe(data, head.start()):
                    return framed[0]
            if reach >= size:
                return None
            reach *= 8


@dataclass(frozen=True, slots=True)
class Torn:
    """A tail that was being written when the machine stopped: where it begins and how many bytes it has."""

    offset: int
    size: int


class RecordReader(Iterator[StoredRecord]):
    """The records of a file in order; after the last, `torn` tells of an incomplete tail, None when there is none.

    `NotVerified` when the file is no log, its sequences do not rise, or a damaged place has a sound record behind it.
    A damaged last record looks like a torn one: what is missing there is for the ledger's signed size to show.
    """

    def __init__(self, path: Path, data: bytes | None = None) -> None:
        """Read the file, or `data` in its place when that was a part of it."""
        self.path = path
        self.torn: Torn | None = None
        self.last_seq = 0
        self.frame = b""
        try:
            self.data = path.read_bytes() if data is None else data
        except FileNotFoundError:
            raise NotFound(f"there is no log {path}.", cure="`swarm sessions` lists the sessions.") from None
        match = _TITLE.match(self.data)
        self.offset = match.end() if match else 0
        if match is None:
            raise self._damaged("this is not the beginning of a session's log")
        self.session = match[1].decode()

    def __next__(self) -> StoredRecord:
        if self.torn or self.offset == len(self.data):
            raise StopIteration
        framed = _unframe(self.data, self.offset)
        if framed is None:
            # Nothing sound behind a broken record means that writing stopped there; otherwise it was changed.
            head = _HEAD.search(self.data, self.offset + 1)
            while head:
                if _unframe(self.data, head.start()):
                    raise self._damaged(f"the record after message {self.last_seq} is damaged, a sound one follows it")
                head = _HEAD.search(self.data, head.start() + 1)
            self.torn = Torn(self.offset, len(self.data) - self.offset)
            raise StopIteration
        stored, end = framed
        if stored.seq <= self.last_seq:
            raise self._damaged(f"message {stored.seq} stands after message {self.last_seq}")
        self.last_seq, self.frame, self.offset = stored.seq, self.data[self.offset : end], end
        return stored

    def rest(self) -> bytes:
        """The bytes that no sound record holds."""
        return self.data[self.offset :]

    def _damaged(self, what: str) -> NotVerified:
        return NotVerified(
            f"{self.path}, byte {self.offset}: {what}.",
            cure="Keep the file as evidence; `swarm doctor --repair` sets it aside, and the next start writes it anew.",
            path=str(self.path),
        )


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
        self.path, self._title = path, title(session)
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
        lines = self._bytes(self._begins[begin], self._begins[end]).split(b"\n")
        if len(lines) != 2 * (end - begin) + 1:
            raise self._changed(begin)
        return lines[0:-1:2], lines[1:-1:2]

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
