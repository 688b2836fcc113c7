"""Which sessions may train now: the events of a deployment's queue session and the pure fold over them.

A session that wants to train is queued, is granted one of so many slots, and returns it when it has ended or a person
has paused it. Hosts alone speak here, in the lane of the operator. A log of the queue is closed when it is long and
the next one, whose number is one higher, is opened: a reader of the present needs none but the last. What a grant says
decides when a session trains and never what is computed.

Higher priorities go first, and within a priority what has begun. Of the others those go first whose requester has the
fewest slots and was granted one longest ago; those of one requester keep the order in which they came. A session that
says what it needs waits until a trainer has so much left. Smaller ones go on meanwhile, but only so many times.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Annotated, Literal, NamedTuple, TypeVar

from pydantic import Field, StringConstraints

from contracts.envelope import Fact
from contracts.event import Event, Hex64, Value, unchanged
from contracts.ids import PARTITION, session_id, uuid8
from contracts.roles import OPERATOR

T = TypeVar("T")
Count = Annotated[int, Field(ge=0)]
TrainingSession = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]{2}-[a-z2-7]{26}$")]


MOST_OVERTAKEN = 8
"""How many sessions may be granted a slot ahead of one that waits for memory or devices; then nothing overtakes it."""


class Demand(NamedTuple):
    """What a session needs to itself while it trains; 0 is what it says nothing of."""

    memory_bytes: int = 0
    devices: int = 0

    def fits(self, room: TrainerRoom) -> bool:
        """Whether a trainer with this room left could train it."""
        enough = room.memory_bytes is None or self.memory_bytes <= room.memory_bytes
        return enough and self.devices <= room.devices


NO_NEEDS = Demand()


class TrainerRoom(Value):
    """What one trainer has for those whom it trains; its memory is None where its system does not say."""

    memory_bytes: Count | None = None
    devices: Count = 0


class QueueOpened(Event, lane=OPERATOR, wire="queue.opened", upcasts=[unchanged], says="queue opened"):
    """The first word of a queue's log, and the head of the keyring on which it stands: no other lane speaks there.

    Since version 2 it names who asked for sessions of the log before, the one first that was granted a slot longest
    ago.
    """

    keyring: Hex64
    askers: tuple[str, ...] = ()


class QueueLimited(
    Event, lane=OPERATOR, wire="queue.limited", upcasts=[unchanged], says="{limit:session} may train at once"
):
    """From here on so many sessions may train at once; those above that keep their slots until they return them.

    Since version 2 it tells what room each trainer that is there has; nothing is known of it where `rooms` is empty.
    """

    limit: Count
    rooms: tuple[TrainerRoom, ...] = ()


class SessionQueued(Event, lane=OPERATOR, wire="session.queued", upcasts=[unchanged]):
    """A session waits for a slot: behind all that wait, or, if it has `begun` before, ahead of those that have not.

    Since version 2 it tells who asked for the session (a trial's is who asked for the search), its priority, what it
    needs to itself, and how often it was overtaken in the log before.
    """

    session: TrainingSession
    begun: bool = False
    asker: str = ""
    priority: int = 0
    memory_bytes: Count = 0
    devices: Count = 0
    overtaken: Count = 0


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
    """A session that waits: since when, and what decides when it is granted a slot."""

    session: str
    since: str
    begun: bool
    asker: str = ""
    priority: int = 0
    needs: Demand = NO_NEEDS
    overtaken: int = 0


@dataclass(frozen=True, slots=True)
class Slot:
    """A slot that is taken: by which session, by which event, since when; for whom, and with what to itself."""

    session: str
    grant: str
    since: str
    asker: str = ""
    needs: Demand = NO_NEEDS


@dataclass(frozen=True)
class Queue:
    """The queue as of one event of its log. Sessions that have left it are not in it, so it stays small."""

    limit: int = 0
    rooms: tuple[TrainerRoom, ...] = ()
    queued: Mapping[str, QueuedSession] = field(default_factory=dict)
    """By session, in the order of the log."""
    slots: Mapping[str, Slot] = field(default_factory=dict)
    """By session."""
    turns: Mapping[str, int] = field(default_factory=dict)
    """By who asked, a number that grows with each grant for one of theirs."""
    opened: bool = False
    closed: bool = False
    events: int = 0
    """How many events the log has: a decision names the number that it was made behind."""

    @cached_property
    def waiting(self) -> tuple[str, ...]:
        """The sessions that wait, the next one first."""
        shares, ranks = Counter(slot.asker for slot in self.slots.values()), dict[str, tuple[object, ...]]()
        ahead = Counter[tuple[int, bool, str]]()
        for session, entry in self.queued.items():
            group = (-entry.priority, not entry.begun, entry.asker)
            # Those that have begun once were granted in turn: now they keep the order in which they come back.
            fair = () if entry.begun else (shares[entry.asker] + ahead[group], self.turns.get(entry.asker, -1 << 62))
            ranks[session] = (*group[:2], *fair)
            ahead[group] += 1
        return tuple(sorted(ranks, key=ranks.__getitem__))

    @cached_property
    def _places(self) -> Mapping[str, int]:
        return {session: place for place, session in enumerate(self.waiting, 1)}

    def place(self, session: str) -> int:
        """The place of a session among those that wait, from 1; 0 when it does not wait."""
        return self._places.get(session, 0)

    @cached_property
    def free(self) -> tuple[TrainerRoom, ...]:
        """What each trainer has left beside what those with a slot need, the largest needs where they just fit.

        Which trainer trains which session is no part of the log, so this is what can be made of their rooms at best.
        """
        left = list(self.rooms)
        for needs in sorted((slot.needs for slot in self.slots.values()), key=lambda needs: needs[::-1], reverse=True):
            fitting = [n for n, room in enumerate(left) if needs.fits(room)]
            if fitting and any(needs):
                n = min(fitting, key=lambda n: (left[n].devices, left[n].memory_bytes or 0))
                memory = left[n].memory_bytes
                rest = memory - needs.memory_bytes if memory is not None else None
                left[n] = TrainerRoom(memory_bytes=rest, devices=left[n].devices - needs.devices)
        return tuple(left)

    def fits(self, session: str) -> bool:
        """Whether a trainer has left what this waiting session needs."""
        return not self.rooms or any(map(self.queued[session].needs.fits, self.free))

    def may_fit(self, session: str) -> bool:
        """Whether a trainer that is there could have what this waiting session needs, once others have ended."""
        return not self.rooms or any(map(self.queued[session].needs.fits, self.rooms))

    def next(self, ready: Collection[str]) -> str:
        """The session to be granted a slot now, among those that are ready; empty when there is none, or no slot.

        One that has been overtaken too often, and fits once others have ended, keeps all behind it waiting.
        """
        for session in self.waiting if len(self.slots) < self.limit else ():
            if session in ready:
                if self.fits(session):
                    return session
                if self.holds_others(session):
                    return ""
        return ""

    def holds_others(self, session: str) -> bool:
        """Whether nothing may overtake this waiting session any more: it was too often, and fits some time."""
        often = self.queued[session].overtaken >= MOST_OVERTAKEN
        return often and not self.fits(session) and self.may_fit(session)

    def advance(self, fact: Fact) -> Queue:
        """The queue after one more admitted event; what may not be said changes nothing."""
        return self.after(fact.event, fact.id, fact.envelope.time)

    def after(self, event: Event, id: str = "", time: str = "") -> Queue:
        """The queue after an event that is said, or about to be, under this id and at this time."""
        queue = replace(self, events=self.events + 1)
        if objection(self, event):
            return queue
        match event:
            case QueueOpened(askers=askers):
                queue = replace(queue, opened=True, turns={asker: n - len(askers) for n, asker in enumerate(askers)})
            case QueueClosed():
                queue = replace(queue, closed=True)
            case QueueLimited(limit=limit, rooms=rooms):
                queue = replace(queue, limit=limit, rooms=rooms)
            case SessionQueued(session=session):
                needs = Demand(event.memory_bytes, event.devices)
                entry = QueuedSession(
                    session, time, event.begun, event.asker, event.priority, needs, overtaken=event.overtaken
                )
                queue = replace(queue, queued={**self.queued, session: entry})
            case SessionGranted(session=session):
                entry = self.queued[session]
                slot = Slot(session, id, time, entry.asker, entry.needs)
                queue = replace(
                    queue,
                    queued=self._overtaken_by(session),
                    slots={**self.slots, session: slot},
                    turns={**self.turns, entry.asker: self.events},
                )
            case SessionReturned(session=session):
                queue = replace(queue, slots=_without(self.slots, session))
            case SessionWithdrawn(session=session):
                queue = replace(queue, queued=_without(self.queued, session))
        return queue

    def _overtaken_by(self, session: str) -> Mapping[str, QueuedSession]:
        """Those that wait once a session was granted a slot: each ahead of it that needs something was overtaken."""
        waiting = _without(self.queued, session)
        if any(any(entry.needs) for entry in waiting.values()):
            for other in self.waiting[: self.place(session) - 1]:
                if any((entry := waiting[other]).needs):
                    waiting[other] = replace(entry, overtaken=entry.overtaken + 1)
        return waiting


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
