"""Which rows are equal, byte for byte, found in bounded memory: a key of 64 bits per row, and a look at the rows."""

from __future__ import annotations

import numpy as np
from blake3 import blake3

from agents.data_manager.scratch import portions
from runtime.engine.chance import finalised, mix

_SEED = np.uint64(mix(0x524F5753))
_WIDE = 256
"""Rows with more bytes than this are hashed one by one, narrower ones number by number and all at once."""


def keys_of(columns: list[np.ndarray]) -> np.ndarray:
    """One uint64 per row; equal rows have equal keys, and others hardly ever do."""
    keys = np.full(len(columns[0]), _SEED, np.uint64)
    for column in columns:
        width = column.dtype.itemsize * int(np.prod(column.shape[1:], dtype=np.int64))
        for part in portions(column):
            mixed = _hashed if width > _WIDE else _mixed
            keys[part] = mixed(keys[part], np.ascontiguousarray(column[part]))
    return keys


def firsts(columns: list[np.ndarray], keys: np.ndarray | None = None) -> np.ndarray:
    """For every row the first row that is equal to it; itself when there is none."""
    keys = keys_of(columns) if keys is None else keys
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    found: np.ndarray = first[inverse].astype(np.int64)
    again = np.flatnonzero(found != np.arange(len(found)))
    # Keys could collide; only rows that really are equal count.
    for column in columns:
        alone = again[~_equal(column, again, column, found[again])]
        found[alone] = alone
    return found


def twins(column: np.ndarray, keys: np.ndarray, ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """For each of our places one of theirs with an equal row, or -1."""
    order = np.argsort(keys[theirs], kind="stable")
    sorted_keys = keys[theirs][order]
    at = np.minimum(np.searchsorted(sorted_keys, keys[ours]), max(0, len(theirs) - 1))
    found = np.full(len(ours), -1, np.int64)
    if not len(theirs):
        return found
    same = np.flatnonzero(sorted_keys[at] == keys[ours])
    candidates = theirs[order[at[same]]]
    sound = _equal(column, ours[same], column, candidates)
    found[same[sound]] = candidates[sound]
    return found


def _equal(column: np.ndarray, ours: np.ndarray, other: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    same = np.ones(len(ours), bool)
    width = max(1, column.dtype.itemsize * int(np.prod(column.shape[1:], dtype=np.int64)))
    step = max(1, (1 << 22) // width)
    for first in range(0, len(ours), step):
        part = slice(first, first + step)
        pairs = column[ours[part]] == other[theirs[part]]
        same[part] = pairs.reshape(len(pairs), -1).all(axis=1)
    return same


def _mixed(keys: np.ndarray, rows: np.ndarray) -> np.ndarray:
    words = rows.reshape(len(rows), -1).view(f"u{rows.dtype.itemsize}")
    for part in words.T:
        keys = finalised(keys * np.uint64(3) ^ part.astype(np.uint64))
    return keys


def _hashed(keys: np.ndarray, rows: np.ndarray) -> np.ndarray:
    flat = rows.reshape(len(rows), -1).view(np.uint8)
    digests = b"".join(blake3(row.data).digest(8) for row in flat)
    return finalised(keys * np.uint64(3) ^ np.frombuffer(digests, "<u8"))
