"""The memory of one session as it has been admitted so far: its facts, its fold after each, and folds derived from it.

It is filled by `runtime.log.follower` alone; everybody else reads it and may wait for it to grow.
"""

from __future__ import annotations

import asyncio
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import reduce
from typing import Any, Protocol, Self, TypeVar
from weakref import ref

from bus.records import RecordPlaces
from contracts.envelope import Fact
from contracts.errors import NotFound
from contracts.event import Event
from contracts.ledger import LedgerCheckpointed, SessionSealed
from contracts.session import SessionState, advance
from contracts.trainer import WindowRecorded
from runtime.log.placed_facts import PlacedFacts, is_window


class AgentFold(Protocol):
    """A pure fold of an agent's own over the facts of one session."""

    def advance(self, fact: Fact) -> Self:
        """The value after one more fact."""
        ...


D = TypeVar("D", bound=AgentFold)


Facts = list[Fact] | PlacedFacts


class StateHistory:
    """The session after its first n events, for every n: some are kept, the others are folded again from those.

    There are at most `MOST` of them: of a long session every so many events one, and near its end one every `EVERY`.
    """

    EVERY, MOST, NEAR = 64, 2048, 512

    def __init__(self, session: str, facts: Facts) -> None:
        self.facts = facts
        self._kept = {0: SessionState(session)}
        self._apart = self.EVERY
        self._size = 1
        self.last = self._kept[0]

    def advance(self, fact: Fact) -> None:
        """Go on behind the last of the facts."""
        self.last = advance(self.last, fact)
        if self._size % self.EVERY == 0:
            self._kept[self._size] = self.last
            if len(self._kept) > self.MOST:
                self._apart *= 2
                near = self._size - self.NEAR * self.EVERY
                self._kept = {at: kept for at, kept in self._kept.items() if at >= near or at % self._apart == 0}
        self._size += 1

    @property
    def kept(self) -> list[SessionState]:
        """Those that need not be folded again."""
        return [*self._kept.values()]

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, n: int) -> SessionState:
        place = range(self._size)[n]
        if place == self._size - 1:
            return self.last
        begin = place - place % self.EVERY
        while begin not in self._kept:
            begin -= self.EVERY
        return reduce(advance, between(self.facts, begin, place), self._kept[begin])


def between(facts: Facts, begin: int, end: int) -> Iterator[Fact]:
    """Those from one number, from 0, up to another."""
    if isinstance(facts, PlacedFacts):
        return facts.between(begin, end)
    return (facts[number] for number in range(begin, end))


class SessionLog:
    """Facts of one session in order; `states[n]` is the session after its first n events.

    Of a long session windows are kept by place alone: at once where it is given the places, else by `put_away`.
    """

    NEWEST, BLOCK = 16_384, 1024  # no append is as large as a block
    """Facts that are held in any case while a session grows, and those that are put away at once."""

    def __init__(self, session: str, places: RecordPlaces | None = None) -> None:
        self.id = session
        self.facts: Facts = [] if places is None else PlacedFacts(places)
        self._reads = self.facts if isinstance(self.facts, PlacedFacts) else None
        """What takes windows that are in the file already."""
        self._away = 0
        """Up to where everything that may be put away is."""
        self.states = StateHistory(session, self.facts)
        self.said: dict[tuple[str, str], Fact] = {}
        """Facts that are held, by lane and id: a guest may say an id that another lane uses too."""
        self._answers: dict[tuple[str, str | None], int] = defaultdict(int)
        self._derived: dict[type[Any], tuple[int, Any]] = {}
        self._grown = asyncio.Event()

    @property
    def state(self) -> SessionState:
        """The fold after the newest fact."""
        return self.states.last

    @property
    def size(self) -> int:
        """How many events have been admitted."""
        return len(self.facts)

    def add(self, facts: Sequence[Fact]) -> None:
        """Add newly admitted facts, fold them, and wake the tasks that wait for them."""
        for fact in facts:
            envelope = fact.envelope
            if self._reads is not None and is_window(fact):
                self._reads.append_away()
            else:
                self.facts.append(fact)
                self.said[envelope.lane, envelope.id] = fact
            self._answers[envelope.lane, envelope.causationid] += 1
            self.states.advance(fact)
        grown, self._grown = self._grown, asyncio.Event()
        grown.set()

    def find(self, lane: str, id: str) -> Fact | None:
        """What was said in this lane under this id."""
        fact = self.said.get((lane, id))
        if fact is None and isinstance(self.facts, PlacedFacts):
            fact = self.facts.find(lane, id)
        return fact

    def telling(self, kinds: tuple[type[Event], ...]) -> Iterator[Fact]:
        """The facts of these kinds, in order; windows are read back only where they are among them."""
        windows = issubclass(WindowRecorded, kinds)
        facts = iter(self.facts) if windows or isinstance(self.facts, list) else self.facts.held()
        return (fact for fact in facts if isinstance(fact.event, kinds))

    def between(self, begin: int, end: int) -> Iterator[Fact]:
        """The facts from one number, from 0, up to another."""
        return between(self.facts, begin, end)

    def beginning(self, size: int) -> SessionLog:
        """The history as it was after the first so many events."""
        places = self.facts.places if isinstance(self.facts, PlacedFacts) else None
        first = SessionLog(self.id, places)
        for begin in range(0, size, self.BLOCK):
            first.add([*self.between(begin, min(begin + self.BLOCK, size))])
        return first

    def put_away(self, places: Callable[[], RecordPlaces | None]) -> None:
        """Keep of old windows only their places in the file, a block at a time, once there are many newer facts.

        Only what is found there as it was admitted is put away; from where it is not, everything stays in memory. What
        is not written yet is looked for again when the session grows.
        """
        end = self._away + self.BLOCK
        if len(self.facts) < end + self.NEWEST:
            return
        if isinstance(self.facts, list):
            found = places()
            self.facts = self.states.facts = PlacedFacts(found, self.facts) if found else self.facts
        there = isinstance(self.facts, PlacedFacts) and self.facts.are_there(self._away, end)
        if isinstance(self.facts, list) or not there:
            self._away = self._away if there is None else sys.maxsize
            return
        for number, fact in enumerate(self.facts.between(self._away, end), self._away):
            if is_window(fact):
                self.said.pop((fact.lane, fact.id), None)
                self.facts.put_away(number)
        self._away = end

    def answers(self, lane: str, cause: str) -> int:
        """How many events of a lane were caused by this event."""
        return self._answers.get((lane, cause), 0)

    async def grown(self, beyond: int) -> None:
        """Wait until the session has more than `beyond` events."""
        while len(self.facts) <= beyond:
            await self._grown.wait()

    def parts(self) -> list[Any]:
        """All objects of which there is one per event, so that `release` can give them back piece by piece."""
        facts = self.facts.held() if isinstance(self.facts, PlacedFacts) else self.facts
        return [*facts, *self.said, *self._answers, *self.states.kept]

    def since(self, position: int) -> Iterator[Fact]:
        """Iterate over the facts after the first `position` ones."""
        yield from self.between(position, len(self.facts))

    def derived(self, start: D, upto: int | None = None) -> D:
        """An agent's fold over this session, computed once per fact; `start` names the fold by its type."""
        upto = len(self.facts) if upto is None else upto
        at, value = self._derived.get(type(start), (0, start))
        if at > upto:
            at, value = 0, start
        for fact in self.between(at, upto):
            value = value.advance(fact)
        self._derived[type(start)] = (upto, value)
        found: D = value
        return found


def newest_root(history: SessionLog) -> LedgerCheckpointed | SessionSealed:
    """What the ledger signed last in a session: its seal, when there is one."""
    for fact in reversed(history.facts):
        if isinstance(fact.event, LedgerCheckpointed | SessionSealed):
            return fact.event
    raise NotFound(
        f"the ledger has signed nothing in {history.id} yet.",
        cure=f"Wait for the first note, or: swarm wait {history.id}",
    )


_PIECE = 1000
"""Objects that are given back at a time: while they are, no other thread of the process gets on."""


def release(*held: list[Any]) -> None:
    """Empty these lists piece by piece; no other code may use them any more."""
    for one in held:
        while one:
            del one[-_PIECE:]


class DetachedLog:
    """All that a session log held when this was made, to be given back piece by piece once the log is not used."""

    def __init__(self, history: SessionLog) -> None:
        self._history = ref(history)
        self._parts = history.parts()

    def release(self) -> bool:
        """Give back the objects and return True, unless the history is still used."""
        if self._history() is not None:
            return False
        release(self._parts)
        return True
