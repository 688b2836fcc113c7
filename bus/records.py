"""The format of the file copy of a session's log: one record written, many read. Nothing is opened for writing here.

Canonical (the same records give the same bytes), self-framing, and readable with `less`:

    stigmergy/log/1 SESSION
    SEQ SUBJECT LENGTH SIGNATURE CHECK      signature `-` where there is none; check = SHA-256 of "SEQ SUBJECT LENGTH
    BODY                                    SIGNATURE", newline, body; LENGTH counts the body's bytes

Only framing is checked; whether a record is a fact is for `bus.admission`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bus.keys import HEADER
from bus.port import StoredRecord
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
                if found := _unframe(data, head.start()):
                    return found[0]
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
        found = _unframe(self.data, self.offset)
        if found is None:
            self._tear()
            raise StopIteration
        stored, end = found
        if stored.seq <= self.last_seq:
            raise self._damaged(f"message {stored.seq} stands after message {self.last_seq}")
        self.last_seq, self.frame, self.offset = stored.seq, self.data[self.offset : end], end
        return stored

    def tail(self) -> bytes:
        """The bytes that no sound record holds."""
        return self.data[self.offset :]

    def _tear(self) -> None:
        """Nothing sound behind a broken record means that writing stopped there; otherwise it was changed."""
        head = _HEAD.search(self.data, self.offset + 1)
        while head:
            if _unframe(self.data, head.start()):
                raise self._damaged(f"the record after message {self.last_seq} is damaged, a sound one follows it")
            head = _HEAD.search(self.data, head.start() + 1)
        self.torn = Torn(self.offset, len(self.data) - self.offset)

    def _damaged(self, what: str) -> NotVerified:
        return NotVerified(
            f"{self.path}, byte {self.offset}: {what}.",
            cure="Keep the file as evidence; `swarm doctor --repair` sets it aside, and the next start writes it anew.",
            path=str(self.path),
        )
