"""A file as a whole: its digest, and whether it is still the same after it was read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from blake3 import blake3

from agents.data_manager.table import Tell, unusable

_PIECE = 1 << 22


def digest_of(file: IO[bytes], tell: Tell) -> str:
    """BLAKE3 of all bytes; the file's position is its beginning afterwards."""
    hasher, read, size = blake3(), 0, os.fstat(file.fileno()).st_size
    file.seek(0)
    while piece := file.read(_PIECE):
        hasher.update(piece)
        read += len(piece)
        if read < size:
            tell(read, size)
    file.seek(0)
    return str(hasher.hexdigest())


@contextmanager
def unchanged(file: IO[bytes]) -> Iterator[None]:
    """Raise when the file was written to while a library read it, judged by its size and time."""
    before = _state(file)
    yield
    if _state(file) != before:
        raise changed()


def changed() -> Exception:
    """The error of a file that is no longer that of its digest."""
    return unusable("data.path", "the file changed while it was read", "Finish writing it, then ask again.")


def _state(file: IO[bytes]) -> tuple[int, int]:
    status = os.fstat(file.fileno())
    return status.st_size, status.st_mtime_ns
