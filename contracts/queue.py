"""Which sessions may train now: the events of a deployment's queue session and the pure fold over them.

A session that wants to train is queued, is granted one of so many slots, and returns it when it has ended or a person
has paused it. Hosts alone speak here, in the lane of the operator. A log of the queue is closed when it is long and
the next one, whose number is one higher, is opened: a reader of the present needs none but the last. What a grant says
decides when a session trains and never what is computed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal, TypeVar

from pydantic import Field, StringConstraints

from contracts.envelope import Fact
from contracts.event import Event, Hex64
from contracts.ids import PARTITION, session_id, uuid8
from contracts.roles import OPERATOR

T = TypeVar("T")
TrainingSession = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]{2}-[a-z2-7]{26}$")]


class QueueOpened(Event, lane=OPERATOR, wire="queue.opened", says="queue opened"):
    """The first word of a queue's log, and the head of the keyring on which it stands: no other lane speaks there."""

    keyring: Hex64


class QueueLimited(Event, lane=OPERATOR, wire="queue.limited", says="{limit:session} may train at once"):
    """From here on so many sessions may train at once; those above that keep their slots until they return them."""

    limit: Annotated[int, Field(ge=0)]


class SessionQueued(Event, lane=OPERATOR, wire="session.queued"):
    """A session waits for a slot: behind all that wait, or, if it has `begun` before, ahead of those that have not."""

    session: TrainingSession
    begun: bool = False


class SessionGranted(Event, lane=OPERATOR, wire="session.granted", says="{session} has a slot"):
    """A session that waited has a slot; the claim of the trainer that trains it cites this event."""

    session: TrainingSession


class SessionReturned(Event, lane=OPERATOR, wire="session.returned", says="{session} gives its slot back: {reason}"):
    """A slot is free: its session has ended, a person has paused it, or no trainer has it in hand while others wait."""

    session: TrainingSession
    reason: Literal["ended", "paused", "idle"]


class SessionWithdrawn(Event, lane=OPERATOR, wire="session.withdrawn", says="{session} waits no more: {reason}"):
    """A session waits no more and never had the slot that it waited for."""

    session: TrainingSession
    reason: Literal["ended", "paused"]


class QueueClosed(Event, lane=OPERATOR, wire="queue.closed", says="queue closed; the next one goes on"):
    """The last word of a queue's log: the next one begins with what was queued and granted here."""


def queue_session(pinned: str, partition: str = PARTITION, number: int = 0) -> str:
    """The session of the numbered queue log, under the root with this fingerprint, in one partition."""
    return session_id(uuid8("queue", pinned, number), partition)


@dataclass(frozen=True, slots=True)
class QueuedSession:
    """A session that waits: since when, and whether it goes ahead of those that have not begun."""

    session: str
    since: str
    begun: bool


@dataclass(frozen=True, slots=True)
class Slot:
    """A slot that is taken: by which session, by which event, since when."""

    session: str
    grant: str
    since: str


@dataclass(frozen=True, slots=True)
class Queue:
    """The queue as of one event of its log. Sessions that have left it are not in it, so it stays small."""

    limit: int = 0
    queued: Mapping[str, QueuedSession] = field(default_factory=dict)
    """By session, in the order of the log."""
    slots: Mapping[str, Slot] = field(default_factory=dict)
    """By session."""
    opened: bool = False
    closed: bool = False
    events: int = 0
    """How many events the log has: a decision names the number that it was made behind."""

    @property
    def waiting(self) -> tuple[str, ...]:
        """The sessions that wait, the next one first."""
        return tuple(sorted(self.queued, key=lambda session: not self.queued[session].begun))

    def place(self, session: str) -> int:
        """The place of a session among those that wait, from 1; 0 when it does not wait."""
        return self.waiting.index(session) + 1 if session in self.queued else 0

    def advance(self, fact: Fact) -> Queue:
        """The queue after one more admitted event; what may not be said changes nothing."""
        return self.after(fact.event, fact.id, fact.envelope.time)

    def after(self, event: Event, id: str = "", time: str = "") -> Queue:
        """The queue after an event that is said, or about to be, under this id and at this time."""
        queue = replace(self, events=self.events + 1)
        if objection(self, event):
            return queue
        match event:
            case QueueOpened():
                queue = replace(queue, opened=True)
            case QueueClosed():
                queue = replace(queue, closed=True)
            case QueueLimited(limit=limit):
                queue = replace(queue, limit=limit)
            case SessionQueued(session=session, begun=begun):
                entry = QueuedSession(session, time, begun)
                queue = replace(queue, queued={**self.queued, session: entry})
            case SessionGranted(session=session):
                slot = Slot(session, id, time)
                queue = replace(queue, queued=_without(self.queued, session), slots={**self.slots, session: slot})
            case SessionReturned(session=session):
                queue = replace(queue, slots=_without(self.slots, session))
            case SessionWithdrawn(session=session):
                queue = replace(queue, queued=_without(self.queued, session))
        return queue


def objection(queue: Queue, event: Event) -> str:
    """Why this may not be said in the queue as it is; empty when it may."""
    why = ""
    if queue.closed:
        why = "the queue is closed"
    elif isinstance(event, QueueOpened) == queue.opened:
        why = "the queue is open already" if queue.opened else "the queue is not open yet"
    else:
        match event:
            case SessionQueued(session=session) if session in queue.queued or session in queue.slots:
                why = f"{session} is in the queue already"
            case SessionGranted() if len(queue.slots) >= queue.limit:
                why = f"{len(queue.slots)} of {queue.limit} slots are taken"
            case SessionGranted(session=session) | SessionWithdrawn(session=session) if session not in queue.queued:
                why = f"{session} is not queued"
            case SessionReturned(session=session) if session not in queue.slots:
                why = f"{session} has no slot"
    return why


def _without(entries: Mapping[str, T], session: str) -> dict[str, T]:
    return {name: entry for name, entry in entries.items() if name != session}
