"""What a list says of each session, kept beside its log: a thousand lines need not cost the reading of a thousand logs.

It is never believed in place of a log. A summary holds for the very files (log and keyring), the home, the pinned root
and the software that it was made from; when any of these is another it is made again. Nothing but lists uses it.
"""

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import contracts
from bus import subjects
from bus.disk import fresh_name
from contracts.errors import SwarmError
from contracts.replies import EventReply, ProblemReply, SessionReply
from runtime.home.home import Home
from runtime.log.archive import Archive
from runtime.log.session_log import DetachedLog, SessionLog
from runtime.version import VERSION
from runtime.views import view

FILE = "summary.json"

_CODE = ("contracts", "bus", "runtime/log", "runtime/views")
"""The files that decide what a summary says, relative to the folder of the packages."""


class _SummaryFiles:
    """The files of one home, under one pinned root."""

    def __init__(self, home: Home, root: str) -> None:
        self._home = home
        self._made = [VERSION, _software(), str(home.root), root]

    def basis(self, session: str, ring: str) -> list[Any]:
        """What a summary made now is made from; taken before the files are read, because they may grow."""
        return [*self._made, *(list(_stamp(self._home.log(log))) for log in (session, ring) if log)]

    def find(self, session: str, basis: list[Any]) -> SessionReply | None:
        """The summary that was made from just this; None when there is none."""
        with suppress(OSError, ValueError, KeyError, TypeError):
            kept = json.loads(self._path(session).read_bytes())
            summary: SessionReply | None = kept["summary"] if kept["basis"] == basis else None
            return summary if isinstance(summary, dict) and summary["session"] == session else None
        return None

    def keep(self, session: str, basis: list[Any], summary: SessionReply) -> None:
        """Have it found again; where nothing can be written it is made again each time."""
        path = self._path(session)
        with suppress(OSError), fresh_name(path) as fresh:
            # A power cut may leave half of it, which is no JSON: only logs are worth waiting for the disk.
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "w") as file:
                json.dump({"basis": basis, "summary": summary}, file)
            fresh.replace(path)

    def _path(self, session: str) -> Path:
        return self._home.sessions / session / FILE


class Summaries(Archive):
    """An archive that also tells its sessions as people are shown them."""

    def __init__(self, home: Home, root: str = "") -> None:
        super().__init__(home, root)
        self._kept = _SummaryFiles(home, self.root)

    def sessions(self) -> list[SessionReply]:
        """A summary of each, oldest first; one that cannot be read says why instead."""
        return [self.summary(session) for session in self.ids()]

    def session(self, session: str) -> SessionReply:
        """The summary of one session."""
        history = self.history(session)
        summary, detached = view.summary(history.state, self._home.blobs), DetachedLog(history)
        del history
        detached.release()
        return summary

    def events(self, session: str, after: int = 0) -> Iterator[EventReply]:
        """The event lines of one session after a position, as plain data, read from its file."""
        return (view.event_line(fact) for fact in self.read(session).history.since(after))

    def summary(self, session: str) -> SessionReply:
        """As `session`, kept beside the log as long as that does not change; one that cannot be read says why."""
        ring = self.ring(subjects.partition(session))
        basis = self._kept.basis(session, ring.history.id if ring else "")
        summary = self._kept.find(session, basis)
        if summary is not None:
            return summary
        try:
            summary = self.session(session)
        except SwarmError as error:
            blank = view.summary(SessionLog(session).state)
            problem: ProblemReply = {"code": error.code, "message": error.message, "cure": error.cure}
            return {**blank, "kind": "unreadable", "state": "failed", "problem": problem}
        self._kept.keep(session, basis, summary)
        return summary


def _stamp(path: Path) -> Iterator[int]:
    """Size, times and number of a file: it is another or has changed when one of them is another."""
    with suppress(OSError):
        status = path.stat()
        yield from (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


@lru_cache(maxsize=1)
def _software() -> str:
    """This code, so that what another version has made is not found."""
    rooms, digest = Path(contracts.__file__).parents[1], sha256()
    for path in sorted(path for room in _CODE for path in (rooms / room).glob("*.py")):
        stamp = path.stat()
        digest.update(f"{path} {stamp.st_size} {stamp.st_mtime_ns}\n".encode())
    return digest.hexdigest()
