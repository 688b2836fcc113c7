"""The whole bus in one process's memory: for `--here`, for tests, for reading a log without a server.

Same promises as over JetStream and the same conformance suite; what it has not: identities and their rights, and a
life after the process. One `MemoryBus` is shared by all who talk to each other.
"""

import asyncio
import bisect
import contextlib
import itertools
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field

from bus.core_wire import answer_of
from bus.frames import append_size
from bus.port import Answer, Record, StoredRecord, Wake
from bus.subjects import matches, stream
from contracts.errors import Ambiguous, Conflict, Full, InvalidInput, Unreachable

_KEPT = 65_536


@dataclass(slots=True)
class _MemoryStream:
    records: list[StoredRecord] = field(default_factory=list)
    last: dict[str, StoredRecord] = field(default_factory=dict)
    size: int = 0
    after: int = 0

    def head(self, subjects: str) -> StoredRecord | None:
        matching = (stored for subject, stored in self.last.items() if matches(subjects, subject))
        return max(matching, key=lambda stored: stored.seq, default=None)

    def add(self, record: Record) -> int:
        seq = max(self.after, self.records[-1].seq if self.records else 0) + 1
        self.keep(StoredRecord(seq, record.subject, record.body, dict(record.headers)))
        return seq

    def keep(self, stored: StoredRecord) -> None:
        self.records.append(stored)
        self.last[stored.subject] = stored

    def behind(self, seq: int) -> int:
        """The index of the first record behind a sequence: a stream that begins with others' records has gaps."""
        return bisect.bisect_right(self.records, seq, key=lambda stored: stored.seq)


@dataclass(slots=True)
class _Durable:
    """How far a role has been told, and what it was told and has not retired: sequence -> when to tell it again."""

    subjects: tuple[str, ...]
    told: int = 0
    open: dict[int, float] = field(default_factory=dict)


@dataclass(eq=False, slots=True)
class _Listener:
    subjects: str
    queue: str
    reply: Answer | None = None
    messages: deque[tuple[str, bytes]] = field(default_factory=lambda: deque(maxlen=_KEPT))


class MemoryBus:
    """`Log`, `Wakes`, `Admin` and `Wire`; `room` bounds the bytes of a stream, `wake_again` the patience of wakes.

    `kept` are records of an earlier life in the order of their sequences; new ones follow them, and follow `after`.
    """

    def __init__(
        self,
        *,
        partition: str = "00",
        room: int | None = None,
        wake_again: float = 30.0,
        kept: Iterable[StoredRecord] = (),
        after: int = 0,
    ) -> None:
        self._partition = partition
        self._room = room
        self._wake_again = wake_again
        self._streams: dict[str, _MemoryStream] = {}
        self._durables: dict[str, _Durable] = {}
        self._listeners: dict[_Listener, None] = {}
        self._turns = itertools.count()
        self._news = asyncio.Event()
        self._cut: deque[bool] = deque()
        for stored in kept:
            self._stream(stored.subject).keep(stored)
        self._stream(f"swarm.ev.{partition}.>").after = after

    def cut(self, *, stored: bool) -> None:
        """Let the next append end as `Ambiguous`, with or without its records stored: what a lost connection does."""
        self._cut.append(stored)

    async def append(self, records: Sequence[Record], *, lane: str, after: int) -> int:
        """See `Log.append`."""
        size = append_size(records, lane)
        store = self._stream(lane)
        cut = self._cut.popleft() if self._cut else None
        if cut is not False:
            head = store.head(lane)
            if (head.seq if head else 0) != after:
                raise Conflict(f"The lane has moved on: {lane!r} is not at {after}.", cure="Read the lane again.")
            self._take(store, size)
            seq = [store.add(record) for record in records][-1]
            self._tell()
        if cut is not None:
            raise Ambiguous(f"No answer to an append to {lane!r}.", cure="Read the lane's head and compare.")
        # As over a network, other tasks run between an append and what follows it.
        await asyncio.sleep(0)
        return seq

    async def head(self, subjects: str) -> StoredRecord | None:
        """See `Log.head`."""
        return self._stream(subjects).head(subjects)

    def read(
        self, subjects: str, *, after: int = 0, follow: bool = False
    ) -> AbstractAsyncContextManager[AsyncIterator[StoredRecord]]:
        """See `Log.read`."""
        return contextlib.aclosing(self._records(subjects, after, follow=follow))

    def wakes(self, role: str) -> AbstractAsyncContextManager[AsyncIterator[Wake]]:
        """See `Wakes.wakes`."""
        return contextlib.aclosing(self._each(role))

    async def provision(self) -> None:
        """See `Admin.provision`."""

    async def consumer(self, role: str, subjects: Sequence[str]) -> None:
        """See `Admin.consumer`."""
        self._durables.setdefault(role, _Durable(())).subjects = tuple(subjects)
        self._tell()

    async def say(self, subject: str, body: bytes) -> None:
        """See `Wire.say`."""
        with contextlib.suppress(InvalidInput):
            store = self._stream(subject)
            self._take(store, len(body))
            store.add(Record(subject, body))
        for listener in self._chosen(subject):
            if listener.reply is None:
                listener.messages.append((subject, body))
            else:
                await answer_of(listener.reply, subject, body)
        self._tell()

    async def ask(self, subject: str, body: bytes, *, timeout: float = 5.0) -> bytes:
        """See `Wire.ask`."""
        reply = next((listener.reply for listener in self._chosen(subject) if listener.reply), None)
        if reply is None:
            raise Unreachable(f"Nobody listens on {subject!r}.", cure="Is the swarm up?")
        try:
            async with asyncio.timeout(timeout):
                return await answer_of(reply, subject, body)
        except TimeoutError:
            raise Unreachable(f"No answer within {timeout} s to {subject!r}.", cure="Try again.") from None

    @contextlib.asynccontextmanager
    async def hear(self, subjects: str) -> AsyncIterator[AsyncIterator[tuple[str, bytes]]]:
        """See `Wire.hear`."""
        async with (
            self._listening(_Listener(subjects, "")) as listener,
            contextlib.aclosing(self._messages(listener)) as messages,
        ):
            yield messages

    @contextlib.asynccontextmanager
    async def answer(self, subjects: str, reply: Answer, *, queue: str = "") -> AsyncIterator[None]:
        """See `Wire.answer`."""
        async with self._listening(_Listener(subjects, queue, reply)):
            yield

    def _stream(self, subjects: str) -> _MemoryStream:
        return self._streams.setdefault(stream(subjects, self._partition), _MemoryStream())

    def _take(self, store: _MemoryStream, size: int) -> None:
        if self._room is not None and store.size + size > self._room:
            raise Full(f"The store has no room: {store.size + size} of {self._room} bytes.", cure="Free some.")
        store.size += size

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    async def _wait(self, until: float | None = None) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(until):
                await self._news.wait()

    async def _records(self, subjects: str, after: int, *, follow: bool) -> AsyncGenerator[StoredRecord]:
        store = self._stream(subjects)
        records, at = store.records, store.behind(after)
        last = None if follow else len(records)
        while True:
            while at < (len(records) if last is None else last):
                stored = records[at]
                at += 1
                if matches(subjects, stored.subject):
                    yield stored
            if last is not None:
                return
            await self._wait()

    async def _each(self, role: str) -> AsyncGenerator[Wake]:
        clock = asyncio.get_running_loop().time
        while True:
            durable = self._durables.get(role)
            stored = self._due(durable, clock()) if durable else None
            if durable and stored:
                durable.open[stored.seq] = clock() + self._wake_again
                yield self._wake(durable, stored)
            else:
                await self._wait(min(durable.open.values(), default=None) if durable else None)

    def _due(self, durable: _Durable, now: float) -> StoredRecord | None:
        """What the role should hear next: what it did not retire in time, else what it has not heard."""
        store = self._stream(f"swarm.ev.{self._partition}.>")
        records = store.records
        for seq, again in durable.open.items():
            if again <= now:
                return records[store.behind(seq) - 1]
        while durable.told < len(records):
            stored = records[durable.told]
            durable.told += 1
            if any(matches(subjects, stored.subject) for subjects in durable.subjects):
                return stored
        return None

    def _wake(self, durable: _Durable, stored: StoredRecord) -> Wake:
        clock = asyncio.get_running_loop().time

        async def done() -> None:
            durable.open.pop(stored.seq, None)

        async def again(delay: float) -> None:
            if stored.seq in durable.open:
                durable.open[stored.seq] = clock() + delay
                self._tell()

        async def busy() -> None:
            await again(self._wake_again)

        return Wake(stored, done, busy, again)

    @contextlib.asynccontextmanager
    async def _listening(self, listener: _Listener) -> AsyncIterator[_Listener]:
        self._listeners[listener] = None
        try:
            yield listener
        finally:
            del self._listeners[listener]

    async def _messages(self, listener: _Listener) -> AsyncGenerator[tuple[str, bytes]]:
        while True:
            while listener.messages:
                yield listener.messages.popleft()
            await self._wait()

    def _chosen(self, subject: str) -> list[_Listener]:
        """Every listener without a queue, and of each queue one, in turns."""
        fitting = [listener for listener in self._listeners if matches(listener.subjects, subject)]
        chosen = [listener for listener in fitting if not listener.queue]
        turn = next(self._turns)
        for queue in dict.fromkeys(listener.queue for listener in fitting if listener.queue):
            members = [listener for listener in fitting if listener.queue == queue]
            chosen.append(members[turn % len(members)])
        return chosen
