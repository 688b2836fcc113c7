"""The Merkle tree of RFC 6962 over a session's facts: roots in O(log n) memory, and what a leaf is made of.

It hashes and compares; who signs a root is the ledger, how it is written down is `bus.notes`.

    leaf  = "stigmergy/leaf/1" seq subject SHA-256(body) SHA-256(kept headers), a line each
    hash  = SHA-256(00 leaf), SHA-256(01 left right)
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence

from bus.keys import HEADER
from bus.port import StoredRecord
from contracts.ids import sha256

EMPTY = hashlib.sha256(b"").digest()
"""The root of a tree without leaves."""

_HASH = 32
_sha256 = hashlib.sha256
_HEADERS = "stigmergy/headers/1\n"
_NO_HEADERS = sha256(_HEADERS.encode())


def leaf(seq: int, subject: str, body_digest: str, headers_digest: str) -> bytes:
    """The canonical bytes of one fact in the tree; digests are lower-case hex."""
    return f"stigmergy/leaf/1\n{seq}\n{subject}\n{body_digest}\n{headers_digest}\n".encode()


def headers_digest(headers: Mapping[str, str]) -> str:
    """The SHA-256 of the one header that files, bundles and leaves keep; all others are the transport's."""
    return sha256(f"{_HEADERS}{HEADER}:{headers[HEADER]}\n".encode()) if HEADER in headers else _NO_HEADERS


def leaf_of(stored: StoredRecord) -> bytes:
    """The leaf of a stored message: the bytes that its hash is made of."""
    return leaf(stored.seq, stored.subject, sha256(stored.body), headers_digest(stored.headers))


def leaf_hash(data: bytes) -> bytes:
    """The hash of a leaf's bytes."""
    return hashlib.sha256(b"\x00" + data).digest()


def leaf_hashes(seqs: Iterable[int], subjects: Iterable[str], bodies: Iterable[str], headers: Iterable[str]) -> bytes:
    """The hashes of many leaves, one behind the other: `leaf_hash(leaf(...))` of each, without a call for it."""
    columns = zip(seqs, subjects, bodies, headers, strict=True)
    leaves = (f"\0stigmergy/leaf/1\n{seq}\n{about}\n{body}\n{kept}\n".encode() for seq, about, body, kept in columns)
    return b"".join([_sha256(data).digest() for data in leaves])


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of an inner node."""
    return hashlib.sha256(b"\x01" + left + right).digest()


class Tree:
    """A growing tree that remembers only the roots of its perfect subtrees, largest first."""

    def __init__(self) -> None:
        self.size = 0
        self._peaks: list[bytes] = []

    def copy(self) -> Tree:
        """Another tree with the same leaves; either may grow."""
        twin = Tree()
        twin.size, twin._peaks = self.size, list(self._peaks)
        return twin

    def append(self, data: bytes) -> None:
        """Add a leaf, given its bytes; each carry of the binary counter joins two subtrees of equal size."""
        node, carries = leaf_hash(data), self.size
        while carries & 1:
            node = node_hash(self._peaks.pop(), node)
            carries >>= 1
        self._peaks.append(node)
        self.size += 1

    def root(self) -> bytes:
        """The root over all leaves so far."""
        return _join(self._peaks) if self._peaks else EMPTY


def _join(peaks: Sequence[bytes]) -> bytes:
    node = peaks[-1]
    for peak in reversed(peaks[:-1]):
        node = node_hash(peak, node)
    return node


class SubtreeRows:
    """The perfect subtrees over many leaves, a row for each height, and so the root over any first of the leaves.

    Runs of leaves are hashed apart, each but the last a multiple of `RUN` long, and joined.
    """

    RUN_HEIGHT = 10
    RUN = 1 << RUN_HEIGHT

    def __init__(self, leaf_hashes: bytes, highest: int | None = None) -> None:
        """Over these leaf hashes, one behind the other; no higher than `highest`."""
        self._rows = [leaf_hashes]
        self._climb(highest)

    @classmethod
    def joined(cls, runs: Sequence[SubtreeRows]) -> SubtreeRows:
        """The rows over all these runs, each made up to `RUN_HEIGHT`."""
        whole = cls(b"", 0)
        whole._rows = [b"".join(run.row(height) for run in runs) for height in range(cls.RUN_HEIGHT + 1)]
        whole._climb(None)
        return whole

    @property
    def size(self) -> int:
        """How many leaves there are."""
        return len(self._rows[0]) // _HASH

    def root(self, size: int, last: SubtreeRows | None = None) -> bytes:
        """The root over the first `size` leaves; `last` has those of the run in which they end, if this has not."""
        peaks, at = [], 0
        for height in reversed(range(size.bit_length())):
            if size >> height & 1:
                rows, first = (last, size - last.size) if last and height < self.RUN_HEIGHT else (self, 0)
                peaks.append(rows.row(height)[(at - first >> height) * _HASH :][:_HASH])
                at += 1 << height
        return _join(peaks) if peaks else EMPTY

    def top(self) -> SubtreeRows:
        """The root of a whole run alone: all that is needed of it where its leaves can be had again."""
        top = SubtreeRows(b"", 0)
        top._rows = [*[b""] * self.RUN_HEIGHT, self.row(self.RUN_HEIGHT)]
        return top

    def row(self, height: int) -> bytes:
        """The roots of the whole subtrees of 2^height leaves, one behind the other."""
        return self._rows[height] if height < len(self._rows) else b""

    def _climb(self, highest: int | None) -> None:
        while len(row := self._rows[-1]) >= 2 * _HASH and len(self._rows) - 1 != highest:
            pairs = range(0, len(row) - 2 * _HASH + 1, 2 * _HASH)
            self._rows.append(b"".join([_sha256(b"\x01" + row[at : at + 2 * _HASH]).digest() for at in pairs]))
