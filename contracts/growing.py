"""Values that grow by one and share what came before: a fold that keeps every version of them stays linear.

Each version is immutable to its holder. Only the newest version extends what is shared; an older one that grows,
as when a fold branches, takes a copy along.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from itertools import islice
from typing import Any, Generic, Self, TypeVar, overload

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class GrowingTuple(Sequence[T]):
    """A tuple that `grown` makes longer without copying it."""

    __slots__ = ("_row", "_size")

    def __init__(self, row: list[T] | None = None) -> None:
        """What is in the list now; the list belongs to this tuple from here on."""
        self._row = [] if row is None else row
        self._size = len(self._row)

    def grown(self, value: T) -> GrowingTuple[T]:
        """One longer; this one stays as it is."""
        row = self._row if len(self._row) == self._size else self._row[: self._size]
        row.append(value)
        return GrowingTuple(row)

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[T]:
        return islice(self._row, self._size)

    def __reversed__(self) -> Iterator[T]:
        return (self._row[at] for at in range(self._size - 1, -1, -1))

    @overload
    def __getitem__(self, at: int) -> T: ...

    @overload
    def __getitem__(self, at: slice) -> tuple[T, ...]: ...

    def __getitem__(self, at: int | slice) -> T | tuple[T, ...]:
        place = range(self._size)[at]
        return self._row[place] if isinstance(place, int) else tuple(self._row[index] for index in place)

    def __eq__(self, other: object) -> bool:
        return tuple(self) == tuple(other) if isinstance(other, GrowingTuple | tuple) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # what is in it need not be hashable

    def __repr__(self) -> str:
        return f"GrowingTuple({list(self)!r})"


class GrowingSet(AbstractSet[str]):
    """A frozenset of words that `marked` makes larger without copying it."""

    __slots__ = ("_order", "_size")

    def __init__(self, order: dict[str, int] | None = None) -> None:
        """The words, each with its place from 0; the dict belongs to this set from here on."""
        self._order = {} if order is None else order
        self._size = len(self._order)

    @classmethod
    def of(cls, words: Iterable[str]) -> Self:
        """A set that begins with these words."""
        return cls({word: at for at, word in enumerate(dict.fromkeys(words))})

    @classmethod
    def _from_iterable(cls, it: Iterable[Any]) -> Any:
        return cls.of(it)

    def marked(self, word: str) -> GrowingSet:
        """With one more; itself when the word is in it."""
        at = self._order.get(word)
        if at is not None and at < self._size:
            return self
        order = self._order if len(self._order) == self._size else {member: at for at, member in enumerate(self)}
        order[word] = self._size
        return GrowingSet(order)

    def __contains__(self, word: Any) -> bool:
        return self._order.get(word, self._size) < self._size

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[str]:
        return islice(self._order, self._size)

    def __repr__(self) -> str:
        return f"GrowingSet({list(self)!r})"


class GrowingTable(Collection[T], Generic[K, T]):
    """Values in the order in which their keys came first; `having` sets one of them and `without` leaves one out.

    What a key held is kept beside what it holds, each with the version that set it, so that no version copies another.
    """

    __slots__ = ("_history", "_size", "_version")

    def __init__(self) -> None:
        """Empty."""
        self._history: _VersionHistory[K, T] = _VersionHistory()
        self._size = self._version = 0

    def having(self, key: K, value: T) -> GrowingTable[K, T]:
        """With this value for this key, in the place that the key has or else as the last."""
        return self._set(key, (value,))

    def without(self, key: K) -> GrowingTable[K, T]:
        """A table without this key; the same table when the key is not in it."""
        return self if self._held(key) == () else self._set(key, ())

    def get(self, key: K) -> T | None:
        """The value of the key, or None."""
        held = self._held(key)
        return held[0] if held else None

    def items(self) -> Iterator[tuple[K, T]]:
        """Keys and what they hold, in order."""
        for key in islice(self._history.cells, self._size):
            for value in self._held(key):
                yield key, value

    def _set(self, key: K, held: tuple[T] | tuple[()]) -> GrowingTable[K, T]:
        following = GrowingTable[K, T]()
        following._history = self._history if self._history.version == self._version else self._copied()
        following._history.version = following._version = self._version + 1
        following._history.cells.setdefault(key, []).append((following._version, held))
        following._size = len(following._history.cells)
        return following

    def _held(self, key: K) -> tuple[T] | tuple[()]:
        cells = self._history.cells.get(key, ())
        return next((held for version, held in reversed(cells) if version <= self._version), ())

    def _copied(self) -> _VersionHistory[K, T]:
        copied = _VersionHistory[K, T]()
        copied.cells = {key: [(0, self._held(key))] for key in islice(self._history.cells, self._size)}
        return copied

    def __iter__(self) -> Iterator[T]:
        return (value for _, value in self.items())

    def __len__(self) -> int:
        return sum(1 for _ in self.items())

    def __bool__(self) -> bool:
        return next(self.items(), None) is not None

    def __contains__(self, value: object) -> bool:
        return any(value == held for held in self)

    def __eq__(self, other: object) -> bool:
        return tuple(self.items()) == tuple(other.items()) if isinstance(other, GrowingTable) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # what is in it need not be hashable

    def __repr__(self) -> str:
        return f"GrowingTable({list(self.items())!r})"


class _VersionHistory(Generic[K, T]):
    """What the versions of a table share: of every key what it held since which version, and the newest version."""

    __slots__ = ("cells", "version")

    def __init__(self) -> None:
        self.cells: dict[K, list[tuple[int, tuple[T] | tuple[()]]]] = {}
        self.version = 0
