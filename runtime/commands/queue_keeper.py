"""Decides which sessions may train: a host folds the queue's log and says who waits, who has a slot and who returns it.

Nothing is remembered between two decisions but how long a session was in no trainer's hand: whoever decides next,
after a crash or at another host, reads the same log. Of two hosts that decide at once one is first, and the other
decides again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from functools import reduce
from typing import Any, NamedTuple

import structlog

from contracts.envelope import Fact
from contracts.errors import Conflict, Refused, SwarmError
from contracts.event import Event
from contracts.operator import PauseRequested, ResumeRequested
from contracts.queue import (
    NO_NEEDS,
    Demand,
    Queue,
    QueueClosed,
    QueueLimited,
    QueueOpened,
    SessionGranted,
    SessionQueued,
    SessionReturned,
    SessionWithdrawn,
    Slot,
    TrainerRoom,
)
from contracts.roles import BUILT_IN, DESK, OPERATOR, TRAINER
from contracts.session import SessionState
from runtime.log.lane_writer import Provenance
from runtime.log.session_log import SessionLog
from runtime.node.node import Node
from runtime.node.presence import BEAT, PRESENT, InstancePresence

log = structlog.get_logger()

MOST_EVENTS, MOST_SLOTS = 1000, 200
"""Events after which a log of the queue is closed, for a start reads the newest one from its beginning; more while so
many sessions are in the queue that the next log would begin with a quarter of them. One with more slots taken is not
closed, for the first append of the next one grants them all again."""

IDLE = 60.0
"""Seconds after which a slot is returned that no trainer has in hand, if others wait for it."""

LARGEST, _TRY_AGAIN = 500, 1.0
"""Events of one append, and seconds after which one that failed is tried again."""


class Applicant(NamedTuple):
    """What an open session of a kind that trains is to the queue."""

    session: str
    wants: bool
    """Whether it trains or wants to: neither its plan nor a person has paused it, before it began or since."""
    ready: bool
    """Whether it could train at once: its dataset is prepared."""
    begun: bool
    asker: str = ""
    priority: int = 0
    needs: Demand = NO_NEEDS

    @classmethod
    def of(cls, state: SessionState) -> Applicant | None:
        """None of a session that has ended, and of any whose kind trains nothing: those wait for children of their own,
        or compute beside them."""
        if not state.kind.trains or state.genesis is None or state.outcome is not None:
            return None
        training = state.training
        paused = training.pause is not None and training.pause.by != "drain"
        wishes, options = {type(wish) for _, wish in state.wishes}, state.request.get("training", {})
        held = PauseRequested in wishes and training.claim is None
        return cls(
            state.id,
            wants=not held and (ResumeRequested in wishes or not paused),
            ready=training.dataset is not None,
            begun=training.claim is not None,
            priority=options.get("priority", 0),
            needs=Demand(**options.get("needs", {})),
        )

    def queued(self, **instead: Any) -> SessionQueued:
        """The event by which it waits."""
        own = {"asker": self.asker, "priority": self.priority, **self.needs._asdict()}
        return SessionQueued(**{"session": self.session, "begun": self.begun, **own, **instead})


def requester(state: SessionState, histories: Mapping[str, SessionLog]) -> str:
    """Who asked for a session; for a session that a built-in role asked for, who asked for its parent."""
    genesis = state.genesis
    while genesis is not None and genesis.asked_by in BUILT_IN and (genesis.parent or "") in histories:
        genesis = histories[genesis.parent or ""].state.genesis
    return genesis.asked_by if genesis is not None else ""


def decide(
    queue: Queue,
    applicants: Sequence[Applicant],
    limit: int,
    idle: Collection[str] = (),
    rooms: tuple[TrainerRoom, ...] = (),
) -> list[Event]:
    """What is to be said in an open queue, given the open sessions in the order of their requests. Pure.

    Sessions that have ended or are paused leave. New ones are queued when they are requested and granted a slot once
    they are ready, the first that waits first, as far as a trainer has the room that it needs. A slot that is `idle`
    goes to the next that waits, and its session to the end.
    """
    said: list[Event] = []

    def say(event: Event) -> None:
        nonlocal queue
        said.append(event)
        queue = queue.after(event)

    known = {applicant.session: applicant for applicant in applicants}
    gone = [session for session in (*queue.slots, *queue.queued) if session not in known or not known[session].wants]
    for session in gone:
        leaves = SessionReturned if session in queue.slots else SessionWithdrawn
        say(leaves(session=session, reason="paused" if session in known else "ended"))
    if (queue.limit, queue.rooms) != (limit, rooms):
        say(QueueLimited(limit=limit, rooms=rooms))
    inside = queue.slots.keys() | queue.queued.keys()
    fresh = [one for one in applicants if one.wants and one.session not in inside]
    for applicant in fresh[:LARGEST]:
        say(applicant.queued())
    if len(fresh) >= LARGEST:
        # The rest is said next: who asks for thousands at once keeps the host from nothing else.
        return said
    ready = {session for session in queue.queued if known[session].ready}
    granted = set[str]()
    while following := queue.next(ready):
        say(SessionGranted(session=following))
        granted.add(following)
    for session in [one for one in queue.slots if one in idle and one not in granted]:
        returned = SessionReturned(session=session, reason="idle")
        following = queue.after(returned).next(ready)
        if following or (len(queue.slots) > limit and ready & queue.queued.keys()):
            say(returned)
            if following:
                say(SessionGranted(session=following))
            say(known[session].queued(begun=False))
    return said


def reopen(
    keyring: str,
    before: Queue,
    applicants: Sequence[Applicant],
    limit: int,
    rooms: tuple[TrainerRoom, ...] = (),
) -> list[Event]:
    """The first words of a log of the queue, given how the one before ended. Pure.

    Who had a slot has it again, whatever the limit is from now on, for its trainer goes on meanwhile; nobody else gets
    it, and who waited keeps its place. Among requesters the order stays in which they were granted slots last.
    """
    wanting = {applicant.session: applicant for applicant in applicants if applicant.wants}
    holders = [wanting[session] for session in before.slots if session in wanting]
    waiting = [entry for session, entry in before.queued.items() if session in wanting]
    there = {one.asker for one in holders} | {entry.asker for entry in waiting}
    askers = sorted(there & before.turns.keys(), key=before.turns.__getitem__)
    said: list[Event] = [QueueOpened(keyring=keyring, askers=tuple(askers))]
    if most := max(limit, len(holders)):
        said.append(QueueLimited(limit=most, rooms=rooms))
    for holder in sorted(holders, key=lambda one: before.turns.get(one.asker, 0)):
        said += [holder.queued(), SessionGranted(session=holder.session)]
    again = (wanting[entry.session].queued(begun=entry.begun, overtaken=entry.overtaken) for entry in waiting)
    return [*said, *again]


class QueueKeeper:
    """Keeps the queue of one partition in step with its sessions until it is cancelled."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._news = asyncio.Event()
        self._applicants: dict[str, Applicant] = {}
        """Those of the open sessions, in the order of their requests."""
        self._low_since: float | None = None
        self._idle_since: dict[str, float] = {}
        self._failed = False
        for history in sorted(node.tail.open_sessions(), key=lambda history: history.facts[0].seq):
            self._look_at(history.state)
        node.presence.listen(self._news.set)
        node.tail.listen(self._hear)

    async def run(self) -> None:
        """Decide whenever a session or a trainer has changed, and after a while, since silence is no event."""
        while True:
            self._news.clear()
            wait = BEAT if await self.keep() else _TRY_AGAIN
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._news.wait()

    async def keep(self) -> bool:
        """Say all that is due now, and open the queue first if it is not; False when the log takes nothing."""
        try:
            while events := self._due():
                history = self._node.tail.queue_log
                assert history is not None  # noqa: S101 - a host follows the queue
                try:
                    await self._node.writer(OPERATOR, DESK).say(history.id, events, Provenance(after=history.size))
                except Conflict:
                    continue  # another host has spoken meanwhile, so what is due is another thing
                except Refused:
                    if history is self._node.tail.queue_log:  # else another host has closed it
                        raise
        except SwarmError as error:
            if not self._failed:
                log.error("nothing can be said in the queue", reason=error.message, cure=error.cure)
            self._failed = True
        else:
            self._failed = False
        return not self._failed

    def _due(self) -> list[Event]:
        """What is to be said next, as one append."""
        tail = self._node.tail
        queue = tail.queue or Queue()
        many = max(MOST_EVENTS, 4 * (len(queue.slots) + len(queue.queued)))
        if queue.events >= many and len(queue.slots) <= MOST_SLOTS:
            return [QueueClosed()]
        applicants = [*self._applicants.values()]
        in_hand = {session for one in self._trainers() for session in one.room.sessions}
        opening: list[Event] = []
        if not queue.opened:
            before = tail.queue_before
            if before is None:  # in a home without a queue so far, what is trained has a slot
                trained = [one.session for one in applicants if one.begun and one.session in in_hand]
                before = Queue(slots={session: Slot(session, "", "") for session in trained})
            limit, rooms = self._offered(before)
            opening = reopen(tail.admission.keyring().head, before, applicants, limit, rooms)
            queue = reduce(Queue.after, opening, queue)
        else:
            limit, rooms = self._offered(queue)
        return [*opening, *decide(queue, applicants, limit, self._idle(queue, in_hand), rooms)][:LARGEST]

    def _trainers(self) -> list[InstancePresence]:
        return [one for one in self._node.presence.roster() if one.role == TRAINER and one.seconds < PRESENT]

    def _offered(self, queue: Queue) -> tuple[int, tuple[TrainerRoom, ...]]:
        """How many sessions the trainers that are there train at once, and what room each has.

        For a while a silent one is still counted.
        """
        trainers, now = [one.room for one in self._trainers() if one.room.slots], time.monotonic()
        slots = sum(room.slots for room in trainers)
        if slots >= queue.limit:
            self._low_since = None
        else:
            self._low_since = now if self._low_since is None else self._low_since
            if now - self._low_since < PRESENT:
                return queue.limit, queue.rooms
        # In an order of their own, so that two hosts say the same of the same trainers.
        rooms = sorted((room.machine for room in trainers), key=lambda room: (room.memory_bytes or 0, room.devices))
        return slots, tuple(rooms)

    def _idle(self, queue: Queue, in_hand: Collection[str]) -> set[str]:
        """Sessions whose slot no trainer has had in hand for so long."""
        now = time.monotonic()
        loose = queue.slots.keys() - in_hand
        self._idle_since = {session: self._idle_since.get(session, now) for session in loose}
        return {session for session, since in self._idle_since.items() if now - since >= IDLE}

    def _hear(self, facts: Sequence[Fact]) -> None:
        history = self._node.tail.histories.get(facts[0].envelope.subject)
        if history is not None:
            self._look_at(history.state)

    def _look_at(self, state: SessionState) -> None:
        """Take in what a session is to the queue by now."""
        applicant = Applicant.of(state)
        if applicant is not None:
            applicant = applicant._replace(asker=requester(state, self._node.tail.histories))
        if applicant != self._applicants.get(state.id):
            self._news.set()
            if applicant is None:
                del self._applicants[state.id]
            else:
                self._applicants[state.id] = applicant
