"""The memory of one session as it has been admitted so far: its facts, its fold after each, and folds derived from it.

It is filled by `runtime.log.tail` alone; everybody else reads it and may wait for it to grow.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import reduce
from typing import Any, Protocol, Self, TypeVar

from contracts.envelope import Fact
from contracts.session import Session, advance


class Derived(Protocol):
    """A pure fold of an agent's own over the facts of one session."""

    def advance(self, fact: Fact) -> Self:
        """The value after one more fact."""
        ...


D = TypeVar("D", bound=Derived)


class States:
    """The session after its first n events, for every n: some are kept, the others are folded again from those."""

    EVERY = 64

    def __init__(self, session: str, facts: Sequence[Fact]) -> None:
        self._facts = facts
        self._kept = [Session(session)]
        self._size = 1
        self.last = self._kept[0]

    def advance(self, fact: Fact) -> None:
        """Go on behind the last of the facts."""
        self.last = advance(self.last, fact)
        if self._size % self.EVERY == 0:
            self._kept.append(self.last)
        self._size += 1

    @property
    def kept(self) -> list[Session]:
        """Those that need not be folded again."""
        return self._kept

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, n: int) -> Session:
        place = range(self._size)[n]
        if place == self._size - 1:
            return self.last
        begin = place // self.EVERY
        return reduce(advance, self._facts[begin * self.EVERY : place], self._kept[begin])


class History:
    """Facts of one session in order; `states[n]` is the session after its first n events."""

    def __init__(self, session: str) -> None:
        self.id = session
        self.facts: list[Fact] = []
        self.states = States(session, self.facts)
        self.said: dict[tuple[str, str], Fact] = {}
        """Facts by lane and id: a guest may say an id that another lane uses too."""
        self._answers: dict[tuple[str, str | None], int] = defaultdict(int)
        self._derived: dict[type[Any], tuple[int, Any]] = {}
        self._grown = asyncio.Event()

    @property
    def state(self) -> Session:
        """The session as it is now."""
        return self.states.last

    @property
    def size(self) -> int:
        """How many events have been admitted."""
        return len(self.facts)

    def add(self, facts: Sequence[Fact]) -> None:
        """Take in newly admitted facts and wake whoever waits for them."""
        for fact in facts:
            self.facts.append(fact)
            envelope = fact.envelope
            self.said[envelope.lane, envelope.id] = fact
            self._answers[envelope.lane, envelope.causationid] += 1
            self.states.advance(fact)
        grown, self._grown = self._grown, asyncio.Event()
        grown.set()

    def answers(self, lane: str, cause: str) -> int:
        """How many events a lane holds because of a cause."""
        return self._answers.get((lane, cause), 0)

    async def grown(self, beyond: int) -> None:
        """Return once more than `beyond` events are here."""
        while len(self.facts) <= beyond:
            await self._grown.wait()

    def parts(self) -> list[Any]:
        """Everything in it of which there is one per event, so that somebody else may hold it too."""
        return [*self.facts, *self.said, *self._answers, *self.states.kept]

    def since(self, position: int) -> Iterator[Fact]:
        """The facts after the first `position`."""
        yield from self.facts[position:]

    def derived(self, start: D, upto: int | None = None) -> D:
        """An agent's fold over this session, computed once per fact; `start` names the fold by its type."""
        upto = len(self.facts) if upto is None else upto
        at, value = self._derived.get(type(start), (0, start))
        if at > upto:
            at, value = 0, start
        for fact in self.facts[at:upto]:
            value = value.advance(fact)
        self._derived[type(start)] = (upto, value)
        found: D = value
        return found
