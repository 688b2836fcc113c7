"""Very many ids and a number for each, in about twenty-three bytes: what a long session may not repeat."""

import re
from collections.abc import Iterable, Iterator

_WRITTEN = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
"""An id as everybody writes one: sixteen bytes say the same."""

_NUMBER = 4
_RECORD = 16 + _NUMBER
_SHARDS = 4096


class Identities:
    """A dictionary from ids to numbers that only grows.

    The newest stand in a dictionary; when there are `MANY` they are packed, by their first bytes, into rows of
    bytes that are searched. An id of any other form than ours stays in the dictionary. Nothing is hashed away: two ids
    are one here exactly when they are the same text.
    """

    MANY = 8192

    __slots__ = ("_odd", "_packed", "_recent", "_rows")

    def __init__(self, ids: Iterable[str] = ()) -> None:
        self._recent: dict[str, int] = dict.fromkeys(ids, 0)
        self._odd: dict[str, int] = {}
        self._rows: list[bytearray] = []
        self._packed = 0

    def set(self, id: str, number: int = 0) -> None:
        """One more; it must not be in here yet."""
        self._recent[id] = number
        if len(self._recent) >= self.MANY:
            self._pack()

    def update(self, ids: Iterable[str]) -> None:
        """More, none of which is in here yet."""
        self._recent.update(dict.fromkeys(ids, 0))
        if len(self._recent) >= self.MANY:
            self._pack()

    def get(self, id: str) -> int | None:
        """The number of an id; None where it is not in here."""
        number = self._recent.get(id)
        if number is not None or not self._rows:
            return number
        return self._odd[id] if id in self._odd else self._find(id)

    def __contains__(self, id: str) -> bool:
        return id in self._recent or (bool(self._rows) and (id in self._odd or self._find(id) is not None))

    def distinct(self) -> int:
        """How many different ids there are, where some may have been put in again."""
        self._pack()
        rows = (bytes(row) for row in self._rows)
        return len(self._odd) + sum(len({row[at : at + 16] for at in range(0, len(row), _RECORD)}) for row in rows)

    def isdisjoint(self, ids: Iterable[str]) -> bool:
        """Whether none of these is in here."""
        return not any(id in self for id in ids)

    def __len__(self) -> int:
        return len(self._recent) + len(self._odd) + self._packed

    def __iter__(self) -> Iterator[str]:
        yield from self._recent
        yield from self._odd
        for row in self._rows:
            for at in range(0, len(row), _RECORD):
                yield _text(bytes(row[at : at + 16]))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Identities):
            return NotImplemented
        return len(self) == len(other) and all(id in other for id in self)

    __hash__ = None  # type: ignore[assignment]  # it grows

    def _find(self, id: str) -> int | None:
        if not _WRITTEN.fullmatch(id):
            return None
        key = bytes.fromhex(id.replace("-", ""))
        row = self._rows[_shard(key)]
        at = row.find(key)
        while at >= 0 and at % _RECORD:
            at = row.find(key, at + 1)
        return int.from_bytes(row[at + 16 : at + _RECORD], "little") if at >= 0 else None

    def _pack(self) -> None:
        self._rows = self._rows or [bytearray() for _ in range(_SHARDS)]
        for id, number in self._recent.items():
            if _WRITTEN.fullmatch(id):
                key = bytes.fromhex(id.replace("-", ""))
                self._rows[_shard(key)] += key + number.to_bytes(_NUMBER, "little")
                self._packed += 1
            else:
                self._odd[id] = number
        self._recent = {}


def _shard(key: bytes) -> int:
    # The last bytes are as good as random in every kind of id; the first are a time in some.
    return int.from_bytes(key[-2:], "little") % _SHARDS


def _text(key: bytes) -> str:
    word = key.hex()
    return f"{word[:8]}-{word[8:12]}-{word[12:16]}-{word[16:20]}-{word[20:]}"
