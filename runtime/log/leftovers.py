"""Removes half-written files of killed processes at the next start, but none that may still be written.

Everything durable is written under a name of its own, beginning with a dot, and renamed when it is whole. In the home
that name ends with the writer's pid; in the blob store, which machines may share, with a random word.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from runtime.home.home import Home
from runtime.jobs import process

OLD = 3600.0
"""Seconds after which a half-written blob is certainly no longer being written."""

_OF_A_PROCESS = re.compile(r"\..+\.(\d+)")
_OF_A_BLOB = re.compile(r"\.[0-9a-f]{64}\.[0-9a-f]{16}")


def remove(home: Home) -> int:
    """Remove files that no process will finish and return their number. The caller holds the home's lock."""
    found = [*_of_dead_processes(home), *_of_old_blobs(home.blobs)]
    for path in found:
        with suppress(OSError):
            path.unlink()
    return len(found)


def _of_dead_processes(home: Home) -> Iterator[Path]:
    for folder in (home.root, home.root / "nats", home.keys, *home.sessions.glob("*")):
        for path in folder.glob(".*"):
            written_by = _OF_A_PROCESS.fullmatch(path.name)
            if written_by and path.is_file() and process.start_time(int(written_by[1])) is None:
                yield path


def _of_old_blobs(blobs: Path) -> Iterator[Path]:
    now = time.time()
    for path in blobs.glob("??/??/.*"):
        with suppress(FileNotFoundError):
            if _OF_A_BLOB.fullmatch(path.name) and now - path.stat().st_mtime > OLD:
                yield path
