"""After a crash: a store that was set back is refused, half-written files are removed, damaged copies are set aside.

The store is never written to.
"""

import re
import time
from collections import deque
from contextlib import suppress
from pathlib import Path

from bus import files, records, subjects
from bus.port import Log, StoredRecord
from contracts.errors import NotVerified
from contracts.ids import PARTITION
from runtime.home.home import Home
from runtime.jobs import process


async def refuse_if_set_back(bus: Log, home: Home, url: str) -> None:
    """Raise `NotVerified` unless the newest record in the home's files is in the store, byte for byte.

    What is lost when a store is set back is its end, so the newest record is the one to ask for.
    """
    found = newest(home)
    if found is None:
        return
    session, copied = found
    held = await _held(bus, copied)
    if held is None or (held.seq, held.subject, held.body) != (copied.seq, copied.subject, copied.body):
        what = "holds no such record" if held is None else "has another one there"
        raise NotVerified(
            f"the store at {url} was lost or set back: the files of {str(home.root)!r} go up to record {copied.seq}, "
            f"of session {session}, and it {what}.",
            cure=f"Put back what was in {home.root / 'nats' / 'store'}, or go on in another home with --home; "
            "the sessions here stay readable: swarm audit S",
            path=str(home.log(session)),
        )


def newest(home: Home) -> tuple[str, StoredRecord] | None:
    """The record with the highest sequence in the files of this partition, and its session."""
    sessions = (one for one in home.session_ids() if subjects.partition(one) == PARTITION)
    last = ((session, records.newest(home.log(session))) for session in sessions)
    return max(((session, one) for session, one in last if one), key=lambda found: found[1].seq, default=None)


async def _held(bus: Log, copied: StoredRecord) -> StoredRecord | None:
    async with bus.read(copied.subject, after=copied.seq - 1) as messages:
        async for stored in messages:
            return stored
    return None


OLD = 3600.0
"""Seconds after which a half-written blob is certainly no longer being written."""

_OF_A_PROCESS = re.compile(r"\..+?\.(\d+)(?:\.[0-9a-f]{16})?")
_OF_A_BLOB = re.compile(r"\.[0-9a-f]{64}(?:\.\d+)?\.[0-9a-f]{16}")
"""The names that `bus.disk.fresh_name` gives, and those that earlier software gave."""


def remove_leftovers(home: Home) -> int:
    """Remove files that no process will finish and return their number. The caller holds the home's lock."""
    leftovers, now = [], time.time()
    for folder in (home.root, home.root / "nats", home.keys, *home.sessions.glob("*")):
        for path in folder.glob(".*"):
            written_by = _OF_A_PROCESS.fullmatch(path.name)
            if written_by and path.is_file() and process.start_time(int(written_by[1])) is None:
                leftovers.append(path)
    for path in home.blobs.glob("??/??/.*"):
        with suppress(FileNotFoundError):
            if _OF_A_BLOB.fullmatch(path.name) and now - path.stat().st_mtime > OLD:
                leftovers.append(path)
    for path in leftovers:
        with suppress(OSError):
            path.unlink()
    return len(leftovers)


def repair(home: Home) -> list[Path]:
    """Set aside copies whose records cannot be told from each other, and say where they are now.

    The next start reads the log from its beginning and writes them again. `Refused` while a host holds the home.
    """
    home.lock()
    moved = []
    try:
        for path in map(home.log, home.session_ids()):
            try:
                deque(files.read(path), maxlen=0)
            except NotVerified:
                taken = len(list(path.parent.glob(f"{path.name}.damaged-*")))
                moved.append(path.rename(path.with_name(f"{path.name}.damaged-{taken + 1}")))
        home.forget_tail()
    finally:
        home.unlock()
    return moved
