"""The facts of a long session: windows are kept by their place in the session's file and read when they are wanted.

Most of a long session is windows, and a typed window takes thousands of bytes. Its leaf in the session's tree takes
thirty-two, and with it whatever is read back is known to be what was admitted.
"""

from collections.abc import Iterator, Sequence
from typing import overload

from bus import subjects
from bus.fast_admission import fact_of
from bus.identities import Identities
from bus.keys import HEADER
from bus.port import StoredRecord
from bus.records import RecordPlaces
from bus.tree import leaf_hash, leaf_of
from contracts.envelope import Fact
from contracts.errors import NotVerified
from contracts.ids import sha256
from contracts.roles import TRAINER
from contracts.trainer import WindowRecorded

_BLOCK = 256
"""Records that are read at once where one fact after the other is wanted."""


class PlacedFacts(Sequence[Fact]):
    """Facts by position; those that were put away are read again, and then not kept. `NotVerified` if the file changed.

    The file must hold the session's facts in their order and nothing else, which is what a host writes.
    """

    def __init__(self, places: RecordPlaces, facts: Sequence[Fact] = ()) -> None:
        self.places = places
        self._held: list[Fact | None] = list(facts)
        self._windows = Identities()
        """By id: the number, from 0, of a window that was put away."""
        self._unnamed = 0
        """Up to where there may be some whose ids are not among those."""

    def append(self, fact: Fact) -> None:
        """One more, held as it is."""
        self._held.append(fact)

    def append_away(self) -> None:
        """One more, whose leaf is known to the places."""
        self._held.append(None)
        self._unnamed = len(self._held)

    def put_away(self, number: int) -> None:
        """Keep of a fact that was found to be there only its place and its id."""
        fact = self._held[number]
        if fact is not None:
            self._windows.set(fact.id, number)
            self._held[number] = None

    def find(self, lane: str, id: str) -> Fact | None:
        """The window with this id, if it was put away."""
        if lane == TRAINER and self._unnamed:
            # A session that is only looked at never needs this, so its ids are collected at the first call.
            end, self._unnamed = self._unnamed, 0
            for number, fact in enumerate(self.between(0, end)):
                if self._held[number] is None and fact.id not in self._windows:
                    self._windows.set(fact.id, number)
        place = self._windows.get(id) if lane == TRAINER else None
        return None if place is None else self[place]

    def held(self) -> Iterator[Fact]:
        """Those that are in memory: all but the windows that were put away."""
        return (fact for fact in self._held if fact is not None)

    def are_there(self, begin: int, end: int) -> bool | None:
        """Whether the file has the facts between two numbers as they were admitted; None while it ends before."""
        try:
            self.places.grow(end)
            if len(self.places) < end:
                return None
            stored = self.places.stored(begin, end)
        except (NotVerified, OSError):
            return False
        if [*map(_said, stored)] != [*map(_as_stored, self.between(begin, end))]:
            return False
        self.places.believe(b"".join(leaf_hash(leaf_of(one)) for one in stored))
        return True

    def between(self, begin: int, end: int) -> Iterator[Fact]:
        """The facts from one number up to another, never many of them at once."""
        for block in range(begin, end, _BLOCK):
            yield from self._block(block, min(block + _BLOCK, end))

    def _block(self, begin: int, end: int) -> Iterator[Fact]:
        held = self._held[begin:end]
        stored = self.places.stored(begin, end) if None in held else []
        for number, fact in enumerate(held):
            yield fact if fact is not None else fact_of(begin + number + 1, stored[number])

    def __len__(self) -> int:
        return len(self._held)

    def __iter__(self) -> Iterator[Fact]:
        return self.between(0, len(self._held))

    def __reversed__(self) -> Iterator[Fact]:
        for end in range(len(self._held), 0, -_BLOCK):
            yield from reversed([*self._block(max(0, end - _BLOCK), end)])

    @overload
    def __getitem__(self, at: int) -> Fact: ...

    @overload
    def __getitem__(self, at: slice) -> list[Fact]: ...

    def __getitem__(self, at: int | slice) -> Fact | list[Fact]:
        place = range(len(self._held))[at]
        if isinstance(place, int):
            fact = self._held[place]
            return fact if fact is not None else fact_of(place + 1, *self.places.stored(place, place + 1))
        if place.step == 1:
            return [*self.between(place.start, place.stop)]
        return [self[number] for number in place]

    def __setitem__(self, number: int, fact: Fact) -> None:
        """Hold another fact there, as who tries out an audit does."""
        self._held[number] = fact

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, PlacedFacts | list):
            return NotImplemented
        return len(self) == len(other) and all(one == two for one, two in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]  # it grows


def _said(stored: StoredRecord) -> tuple[int, str, str, str]:
    return stored.seq, stored.subject, sha256(stored.body), stored.headers.get(HEADER, "")


def _as_stored(fact: Fact) -> tuple[int, str, str, str]:
    return fact.seq, subjects.fact(fact.envelope.subject, fact.lane, fact.name), fact.digest, fact.signature


def is_window(fact: Fact) -> bool:
    """Whether this is what may be put away."""
    return type(fact.event) is WindowRecorded
