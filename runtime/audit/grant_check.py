"""Whether the grants that a session cites are in the logs of the queue, where a home has those.

A bundle has no log of a queue, nor has the home of an agent alone: nothing is said of their sessions. Nothing is said
either of a grant that may only be missing from a copy that was cut off.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from bus import records, subjects
from contracts.envelope import Fact
from contracts.errors import SwarmError
from contracts.queue import Queue, SessionGranted, objection
from contracts.trainer import TrainingClaimed, TrainingResumed
from runtime.log.archive import Archive
from runtime.replay.verdict import Divergence

CITING = (TrainingClaimed, TrainingResumed)
"""Events that cite a grant."""


def check_grants(archive: Archive, citing: Sequence[Fact]) -> Iterator[Divergence]:
    """A divergence for each of these events that cites a grant which its session never had before it."""
    logs: list[tuple[str, Path]] | None = None
    for fact in citing:
        if isinstance(fact.event, CITING) and fact.event.grant is not None:
            logs = archive.queues(subjects.partition(fact.envelope.subject)) if logs is None else logs
            if why := _objection_to(fact, fact.event.grant, archive, logs):
                yield Divergence(fact.position, fact.seq, "grant", why)


def _objection_to(citing: Fact, grant: str, archive: Archive, logs: Sequence[tuple[str, Path]]) -> str:
    """Why this event does not follow from the grant that it cites; empty when it does, or when nobody can know."""
    session = citing.envelope.subject
    for queue_session, path in reversed(logs):
        # One log of several is read: ids are written as they are, and a file is searched a thousand times as fast.
        if f'"id":"{grant}"'.encode() not in path.read_bytes():
            continue
        try:
            facts = archive.history(queue_session).facts
        except SwarmError:
            return ""  # what is wrong with the queue's log is not wrong with the session's
        queue = Queue()
        for fact in facts:
            if fact.id == grant:
                event, before = fact.event, fact.seq < citing.seq
                granted = isinstance(event, SessionGranted) and event.session == session
                return "" if granted and before and not objection(queue, event) else f"{grant} gave it no slot"
            queue = queue.advance(fact)
    newest = records.newest(logs[-1][1]) if logs else None
    if newest is None or newest.seq < citing.seq:
        return ""
    return f"it cites grant {grant}, and no log of the queue has it"
