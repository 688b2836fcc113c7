"""Follows the log: admits every stored message once, folds it, and copies what was admitted into the home's files.

One tail serves all agents of a process. What is not admitted is void: counted, listed, and never folded.
"""

import asyncio
import time
from collections.abc import Callable

import structlog

from bus import subjects
from bus.admission import Admission
from bus.decode import Void, Voids, place
from bus.port import Log, StoredRecord
from bus.records import RecordPlaces
from contracts.envelope import Fact
from contracts.queue import Queue, QueueClosed, QueueOpened, queue_session
from contracts.roles import OPERATOR
from runtime.log.session_log import SessionLog

log = structlog.get_logger()

Copy = Callable[[str, list[StoredRecord]], None]
"""Called with a session and the messages just admitted, to append them to the home's files."""


class LogFollower:
    """Follows one partition of the log and keeps the admitted history of every session that is open."""

    def __init__(
        self,
        bus: Log,
        admission: Admission,
        *,
        copy: Copy | None = None,
        places: Callable[[str], RecordPlaces | None] | None = None,
        keep_sealed: int = 64,
    ) -> None:
        """Where copies are kept, `places` tells where those of a session stand: then old windows leave the memory."""
        self.admission = admission
        self.histories: dict[str, SessionLog] = {}
        self.seq = 0
        self._keyring = ""
        self._root, self._queue, self._queue_number = "", "", 0
        self.queue_before: Queue | None = None
        """The queue as its newest closed log ended; None where none was closed, as far as this follower has read."""
        self.caught_up = asyncio.Event()
        self._bus = bus
        self._copy = copy
        self._places = places
        self._keep_sealed = keep_sealed
        self._sealed: list[str] = []
        self._moved = asyncio.Event()
        self._pending: dict[str, list[StoredRecord]] = {}
        self._undecided: tuple[int, str] | None = None
        self._listeners: list[Callable[[list[Fact]], None]] = []
        self._onlookers: list[Callable[[StoredRecord], None]] = []
        self._void_onlookers: list[Callable[[Void], None]] = []
        self._lines = LogLineLimit()

    @property
    def keyring(self) -> str:
        """The keyring's session; it is read from its start even when other sessions are read from a later place."""
        return self._keyring

    @keyring.setter
    def keyring(self, session: str) -> None:
        self._keyring = session
        self.admission.own = subjects.partition(session)

    @property
    def partition(self) -> str:
        """The partition in which new sessions are made: that of the keyring."""
        return self.admission.own

    def follow_queue(self, root: str) -> None:
        """Follow the queue under the root with this fingerprint, from the first log to the newest one."""
        self._root = root
        self._go_to_queue(0)

    def _go_to_queue(self, number: int) -> None:
        self._queue_number, self._queue = number, queue_session(self._root, self.partition, number)

    @property
    def queue_log(self) -> SessionLog | None:
        """The newest log of the queue, empty before it is opened; None where no queue is followed."""
        return self.history(self._queue) if self._queue else None

    @property
    def queue(self) -> Queue | None:
        """The queue as of the newest event of its log; None where no host has ever kept one."""
        history = self.queue_log
        if history is None or not (history.size or self._queue_number):
            return None
        return history.derived(Queue())

    @property
    def voids(self) -> Voids:
        """The newest messages that were not admitted, and how many there were."""
        return self.admission.voids

    def listen(self, listener: Callable[[list[Fact]], None]) -> None:
        """Call a function with every batch of admitted facts, at once and in order."""
        self._listeners.append(listener)

    def look_on_voids(self, onlooker: Callable[[Void], None]) -> None:
        """Call a function with every message that is not admitted from now on."""
        self._void_onlookers.append(onlooker)

    def look_on(self, onlooker: Callable[[StoredRecord], None]) -> None:
        """Call a function with every message that is stored from now on, fact or not."""
        self._onlookers.append(onlooker)

    async def run(self, *, after: int = 0) -> None:
        """Follow the log for ever, from behind `after`; `caught_up` is set once the present is reached."""
        if after and self.keyring:
            await self._read_until(after, self.keyring)
        if after and self._root:
            await self._find_queue(after)
            await self._read_until(after, self._queue)
        self.seq = after
        newest = await self._bus.head(subjects.EVERYTHING)
        goal = newest.seq if newest else 0
        if goal <= after:
            self.caught_up.set()
        async with self._bus.read(subjects.EVERYTHING, after=after, follow=True) as messages:
            async for stored in messages:
                self.take(stored)
                if stored.seq >= goal:
                    self.caught_up.set()

    async def _read_until(self, end: int, session: str) -> None:
        """Take the messages of one session up to a sequence, in whatever order sessions are read so."""
        self.seq = 0
        async with self._bus.read(subjects.session(session)) as messages:
            async for stored in messages:
                if stored.seq > end:
                    break
                self.take(stored)

    async def _find_queue(self, after: int) -> None:
        """Go to the first log of the queue that has messages behind `after`, or to the newest when none has."""

        async def newest(number: int) -> int:
            session = queue_session(self._root, self.partition, number)
            head = await self._bus.head(subjects.lane(session, OPERATOR))
            return head.seq if head else 0

        over, beyond = -1, 1  # a log is opened only after the one before was closed, so the answer can be halved
        while 0 < await newest(beyond - 1) <= after:
            over, beyond = beyond - 1, 2 * beyond
        while beyond - over > 1:
            middle = (over + beyond) // 2
            over, beyond = (middle, beyond) if 0 < await newest(middle) <= after else (over, middle)
        self._go_to_queue(beyond if await newest(beyond) else max(0, over))

    def take(self, stored: StoredRecord) -> list[Fact]:
        """Admit one message, fold and copy what it completes, and wake the tasks that wait for it."""
        if stored.seq <= self.seq:
            return []
        for onlooker in self._onlookers:
            onlooker(stored)
        before = self.voids.total
        facts = self.admission.admit(stored)
        voids = self.voids.since(before)
        for void in voids:
            for void_onlooker in self._void_onlookers:
                void_onlooker(void)
            if self._lines.take(time.monotonic()):
                log.warning("not admitted", seq=void.seq, subject=void.subject, reason=void.reason)
        self._decide(stored, facts, voids)
        if facts:
            self._fold(facts)
        self._keep(stored, facts, voids)
        if facts:
            self._put_away(facts[0].envelope.subject)
        self.seq = stored.seq
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()
        return facts

    def history(self, session: str) -> SessionLog:
        """The history of a session; an empty one when nothing was admitted, or when the session is only in its file."""
        found = self.histories.get(session)
        if found is None:
            found = SessionLog(session)
            # Nothing will be added to one that is sealed, so no caller waits for it here.
            if not self.admission.sealed(session):
                self.histories[session] = found
        return found

    async def reached(self, seq: int) -> None:
        """Return once the message at `seq` was read; the append that it belongs to may still be incomplete."""
        while self.seq < seq:
            await self._moved.wait()

    async def decided(self, seq: int) -> None:
        """Return once it is certain whether the message at `seq` is a fact, at the latest after its append's end."""
        while (self._undecided[0] - 1 if self._undecided else self.seq) < seq:
            await self._moved.wait()

    def open_sessions(self) -> list[SessionLog]:
        """Sessions that have begun and are not sealed."""
        return [one for one in self.histories.values() if one.state.genesis and not one.state.sealed]

    def resume_after(self) -> int:
        """The sequence from which a restart must read: no earlier message belongs to an open session."""
        unsealed = [one for one in self.histories.values() if one.facts and not one.state.sealed]
        # Those of the deployment itself are never sealed, and are read from their start at every start.
        ours = {one.id for one in unsealed if one.id == self.keyring or isinstance(one.facts[0].event, QueueOpened)}
        firsts = [one.facts[0].seq for one in unsealed if one.id not in ours]
        return min([self.seq + 1, *firsts]) - 1

    def _decide(self, stored: StoredRecord, facts: list[Fact], voids: list[Void]) -> None:
        """Note where an append begins whose signed end is to come; any other message shows that it never will."""
        if facts or any(void.seq == stored.seq for void in voids):
            self._undecided = None
            return
        lane = stored.subject.rpartition(".")[0]
        if self._undecided is None or self._undecided[1] != lane or voids:
            self._undecided = stored.seq, lane

    def _fold(self, facts: list[Fact]) -> None:
        history = self.history(facts[0].envelope.subject)
        was_sealed = history.state.sealed is not None
        history.add(facts)
        if history.id == self._queue and isinstance(facts[-1].event, QueueClosed):
            self.queue_before = history.derived(Queue())
            self._go_to_queue(self._queue_number + 1)
            del self.histories[history.id]
            self.admission.forget(history.id)
        if history.state.sealed and not was_sealed:
            # Sealed sessions are read from their files; only the newest stay in memory.
            self._sealed.append(history.id)
            while len(self._sealed) > self._keep_sealed:
                oldest = self._sealed.pop(0)
                self.histories.pop(oldest, None)
                self.admission.forget(oldest)
        for listener in self._listeners:
            listener(facts)

    def _put_away(self, session: str) -> None:
        """Let go of old windows that the copy holds by now."""
        history, places = self.histories.get(session), self._places
        if history is not None and places is not None:
            history.put_away(lambda: places(session))

    def _keep(self, stored: StoredRecord, facts: list[Fact], voids: list[Void]) -> None:
        """Copy what was admitted; of the rest only what waits for the end of its append is remembered."""
        where = place(stored.subject)
        if self._copy is None or where is None:
            return
        for session in {void.session for void in voids} - {where.session}:
            self._pending.pop(session, None)
        pending, waiting = [*self._pending.pop(where.session, ()), stored], self.admission.waiting(where.session)
        if facts:
            admitted = {fact.seq for fact in facts}
            self._copy(where.session, [one for one in pending if one.seq in admitted])
        elif waiting:
            self._pending[where.session] = pending[-waiting:]


class LogLineLimit:
    """Lines of a log that strangers can bring about: at most so many in so many seconds."""

    MOST, SECONDS = 20, 60.0

    def __init__(self) -> None:
        self._began = -self.SECONDS
        self._written = 0

    def take(self, now: float) -> bool:
        """Whether one more line may be written now; the voids that are not written are counted all the same."""
        if now - self._began >= self.SECONDS:
            self._began, self._written = now, 0
        self._written += 1
        return self._written <= self.MOST
