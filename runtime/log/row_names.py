"""What a source calls the rows of a dataset's splits, and which row a name means. Rows count from 1, as people do."""

import mmap
from itertools import islice
from typing import NamedTuple

import numpy as np
import orjson

from bus.blobs import DirectoryBlobs
from contracts.data_manager import DatasetPrepared
from contracts.errors import InvalidInput, NotFound

MADE = "synthetic.jsonl"
ASIDE = "set-aside.jsonl"


class RowPlace(NamedTuple):
    """A row by its split and its place there, from 1."""

    split: str
    row: int

    def __str__(self) -> str:
        return f"{self.split}:{self.row}"


class RowNames:
    """The rows of one prepared dataset by name."""

    def __init__(self, ready: DatasetPrepared, blobs: DirectoryBlobs) -> None:
        self._ready, self._blobs = ready, blobs
        self._named = ready.origins.blobs if ready.origins else {}
        self._folder = blobs.root / "datasets" / ready.root

    def of(self, place: RowPlace) -> str | None:
        """What the source calls a row, if that is known: `row 17`, a file, or the rows that it was made of."""
        digest = self._named.get(place.split)
        if digest is None or not self._blobs.has(digest):
            return None
        if self._are_files:
            file = self._line(digest, place.row)
            return file if file is not None else self._made_of(place)
        numbers = self._numbers(digest)
        return f"row {numbers[place.row - 1]}" if place.row <= len(numbers) else self._made_of(place)

    def find(self, name: str) -> RowPlace:
        """The row that a name means: `train:17`, a number that a row has in its source, or a file.

        Raises `NotFound` for a name that no row has, `InvalidInput` for a place that no split has.
        """
        split, _, row = name.rpartition(":")
        if split in self._ready.splits and row.isdigit():
            return self._checked(RowPlace(split, int(row)))
        wanted = name.removeprefix("row ").strip()
        for split, digest in self._named.items():
            at = self._row_of(digest, wanted)
            if at is not None:
                return RowPlace(split, at)
        known = "a file" if self._are_files else "the number of a row"
        names = known if self._named else "nothing"
        raise NotFound(
            f"no row is called {name!r}: the source knows rows by {names}.",
            cure=f"Write {known}, or a place such as train:1." if self._named else "Write a place such as train:1.",
            path=name,
        )

    def between(self, split: str, first: int, last: int) -> tuple[int, int] | None:
        """The places of the rows of a split whose numbers in the source lie from one to another; None when none do."""
        digest = self._named.get(split)
        if digest is None or self._are_files:
            raise NotFound("the source does not number its rows.", cure="Write places, such as train:1-9.")
        numbers = self._numbers(digest)
        begin, end = np.searchsorted(numbers, first), np.searchsorted(numbers, last, side="right")
        return (int(begin) + 1, int(end)) if begin < end else None

    def aside(self, name: str) -> dict[str, str] | None:
        """Why a row is in no split, if it was set aside when the data were prepared."""
        called = name if self._are_files else f"row {name.removeprefix('row ').strip()}"
        listed = self._folder / ASIDE
        for line in listed.read_bytes().splitlines() if listed.is_file() else ():
            told: dict[str, str] = orjson.loads(line)
            where = told["where"]
            if where == called or (where.startswith(called) and where[len(called)] in ": "):
                return told
        return None

    @property
    def _are_files(self) -> bool:
        return self._ready.origins is not None and self._ready.origins.called == "file"

    def _checked(self, place: RowPlace) -> RowPlace:
        rows = self._ready.splits[place.split]
        if not 1 <= place.row <= rows:
            message = f"there is no row {place}: the split {place.split!r} has {rows} rows."
            raise InvalidInput(message, cure=f"Choose from {place.split}:1 to {place.split}:{rows}.", path=str(place))
        return place

    def _row_of(self, digest: str, wanted: str) -> int | None:
        if self._are_files:
            line = orjson.dumps(wanted) + b"\n"
            with (
                self._blobs.check(digest).open("rb") as file,
                mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text,
            ):
                first = text[: len(line)] == line
                at = 0 if first else text.find(b"\n" + line) + 1
                return text[:at].count(b"\n") + 1 if at or first else None
        if not wanted.isdigit():
            return None
        numbers = self._numbers(digest)
        at = int(np.searchsorted(numbers, int(wanted)))
        return at + 1 if at < len(numbers) and numbers[at] == int(wanted) else None

    def _numbers(self, digest: str) -> np.ndarray:
        """Ascending, so that a number is found without reading the rest."""
        path = self._blobs.check(digest)
        return np.memmap(path, "<i8", "r") if path.stat().st_size else np.empty(0, np.int64)

    def _line(self, digest: str, number: int) -> str | None:
        with self._blobs.check(digest).open("rb") as file:
            line = next(islice(file, number - 1, None), None)
        return None if line is None else str(orjson.loads(line))

    def _made_of(self, place: RowPlace) -> str | None:
        """The name of a synthetic row, made of its parents' names; parents are listed behind the source's rows."""
        listed = self._folder / MADE
        if not listed.is_file():
            return None
        with listed.open("rb") as file:
            for line in file:
                told = orjson.loads(line)
                if told["row"] == place.row:
                    return f"made from {' and '.join(told['parents'])}"
        return None
