"""A session's log looked at in a small part of the time that reading it takes; nothing when anything is unusual.

Two processes share a long one. What they look at, and what a signed root stands for, is told in `bus.bulk`.
"""

from __future__ import annotations

import marshal
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from bus import bulk, subjects
from contracts.errors import NotVerified
from runtime.audit.account import CURVES, Account
from runtime.jobs.cycles import unswept
from runtime.jobs.process import cores
from runtime.log.archive import Archive

_WORTH = 4 * bulk.RUN
"""Records of which a second process takes its share in less time than it needs to begin."""


def account(archive: Archive, session: str) -> Account | None:
    """The account of a session all of whose records are in order; None where that takes a closer look."""
    try:
        with unswept():
            return _account(archive, session)
    except (bulk.Unusual, NotVerified):
        return None


def _account(archive: Archive, session: str) -> Account:
    partition = subjects.partition(session)
    ring = archive.ring(partition)
    if ring is None or ring.history.id == session:
        raise bulk.Unusual
    asked = bulk.Asked(session, ring.admission.keyring(partition), CURVES)
    lines = bulk.Lines(archive.data(session), session)
    return Account.of_lines(bulk.admitted(lines, asked, _runs(lines, asked)), lines, asked)


def _runs(lines: bulk.Lines, asked: bulk.Asked) -> list[bulk.Run]:
    # A process that has more threads may not be forked: one of them could hold a lock.
    if len(lines) < _WORTH or threading.active_count() > 1 or cores() == 1:
        return list(bulk.read(lines, asked))
    middle = -(-len(lines) // (2 * bulk.RUN)) * bulk.RUN
    with _beside(lines, asked, middle) as answer:
        return [*bulk.read(lines, asked, 0, middle), *_told(answer, lines, middle)]


@contextmanager
def _beside(lines: bulk.Lines, asked: bulk.Asked, begin: int) -> Iterator[int]:
    """Another process reads the records from here on; it writes its runs as plain values into this descriptor."""
    answer, told = os.pipe()
    child = os.fork()
    if child == 0:
        _tell(told, lines, asked, begin)
    os.close(told)
    try:
        yield answer
    finally:
        os.close(answer)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _tell(told: int, lines: bulk.Lines, asked: bulk.Asked, begin: int) -> None:
    """Nothing of the parent is tidied up here, and nothing is left behind; whatever goes wrong, there is no answer."""
    try:
        with os.fdopen(told, "wb") as pipe:
            marshal.dump([run.plain() for run in bulk.read(lines, asked, begin)], pipe)
    finally:
        os._exit(0)


def _told(answer: int, lines: bulk.Lines, begin: int) -> list[bulk.Run]:
    with os.fdopen(answer, "rb", closefd=False) as pipe:
        try:
            said = marshal.load(pipe)  # noqa: S302 - plain values, from a copy of this very process
        except (EOFError, ValueError, TypeError):
            raise bulk.Unusual from None
    return [bulk.Run.of_plain(one, lines, begin + bulk.RUN * number) for number, one in enumerate(said)]
