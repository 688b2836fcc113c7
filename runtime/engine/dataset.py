"""The canonical dataset: raw columns in files, memory-mapped, named by a Merkle root. It reads no foreign format."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NotRequired, Self, TypedDict

import numpy as np
from blake3 import blake3

from contracts.errors import InvalidInput, NotFound, NotVerified
from runtime.engine.facts import Facts
from runtime.engine.ragged import Ragged, apart, together

PIECE = 1 << 22


@dataclass(frozen=True)
class StoredColumn:
    """One column of one split as it lies on disk; `pieces` are the digests of its 4 MiB pieces, in order."""

    dtype: str
    shape: tuple[int, ...]
    file: str
    pieces: tuple[str, ...]


class ColumnFile:
    """A column that is being written: rows are appended in any portions, and the same rows give the same bytes."""

    def __init__(self, directory: Path, file: str, dtype: np.dtype, shape: tuple[int, ...]) -> None:
        if dtype.hasobject or dtype.kind not in "fiub":
            cure = "Use floats, integers or booleans."
            raise InvalidInput(f"the column {file!r} has the dtype {dtype.str!r}", cure=cure)
        self._dtype, self._shape, self._name = dtype.newbyteorder("<"), shape, file
        self._file = (directory / file).open("wb")
        self._hasher, self._hashed = blake3(), 0
        self._pieces: list[str] = []
        self._rows = 0

    def append(self, rows: np.ndarray) -> None:
        """Write some more rows behind those that are there."""
        data = np.ascontiguousarray(rows, self._dtype).reshape(-1).view(np.uint8).data
        self._file.write(data)
        self._rows += len(rows)
        while len(data):
            taken = data[: PIECE - self._hashed]
            self._hasher.update(taken)
            self._hashed += len(taken)
            data = data[len(taken) :]
            if self._hashed == PIECE:
                self._next_piece()

    def finished(self) -> StoredColumn:
        """The column as it lies on disk, for good."""
        if self._hashed:
            self._next_piece()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        return StoredColumn(self._dtype.str, (self._rows, *self._shape), self._name, tuple(self._pieces))

    def _next_piece(self) -> None:
        self._pieces.append(str(self._hasher.hexdigest()))
        self._hasher, self._hashed = blake3(), 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


FORMAT = 1
LONGEST_NAME = 255
"""Bytes of a file's name that file systems allow."""
MANIFEST = "manifest.json"


class StoredColumnForm(TypedDict):
    """A column on disk, as a manifest has it."""

    dtype: str
    shape: Sequence[int]
    file: str
    pieces: Sequence[str]


class ManifestForm(TypedDict):
    """A manifest as JSON; its root is over all the rest."""

    format: int
    facts: dict[str, object]
    splits: Mapping[str, Mapping[str, StoredColumnForm]]
    root: NotRequired[str]


@dataclass(frozen=True)
class Manifest:
    """What a dataset is: its facts, its columns and one root over all of them; the same rows have the same root."""

    facts: Facts
    splits: Mapping[str, Mapping[str, StoredColumn]]
    root: str

    def as_json(self) -> ManifestForm:
        """The JSON form, `root` included."""
        return {**_body(self.facts, self.splits), "root": self.root}

    @classmethod
    def from_json(cls, raw: ManifestForm) -> Manifest:
        """A manifest from its JSON form; raises `NotVerified` when its root is not the root of the rest."""
        splits = {
            split: {
                name: StoredColumn(one["dtype"], tuple(one["shape"]), plain_name(one["file"]), tuple(one["pieces"]))
                for name, one in columns.items()
            }
            for split, columns in raw["splits"].items()
        }
        files = [one.file for columns in splits.values() for one in columns.values()]
        if MANIFEST in files:
            raise NotVerified(f"{MANIFEST!r} is no name of a file of a dataset", cure="Prepare the dataset again.")
        if twice := next((one for one in files if files.count(one) > 1), None):
            raise NotVerified(f"two columns lie in one file, {twice!r}", cure="Prepare the dataset again.")
        made = cls(Facts.from_json(raw["facts"]), splits, raw["root"])
        if _root(made.facts, splits) != made.root:
            raise NotVerified(f"the manifest's root {made.root!r} is not that of its content", cure="Prepare it again.")
        return made

    @property
    def rows(self) -> Mapping[str, int]:
        """Rows per split."""
        return self.facts.rows

    def files(self) -> Iterator[tuple[str, int]]:
        """Every data file and its size in bytes."""
        for columns in self.splits.values():
            for one in columns.values():
                yield one.file, int(np.prod(one.shape, dtype=np.int64)) * np.dtype(one.dtype).itemsize


def plain_name(name: str) -> str:
    """The name of a file that lies in the dataset's own folder; `NotVerified` when it would lead out of there."""
    if name in ("", ".", "..") or "/" in name or "\0" in name or len(name.encode()) > LONGEST_NAME:
        raise NotVerified(f"{name!r} is no name of a file of a dataset", cure="Prepare the dataset again.")
    return name


Put = Callable[[Path, bytes], object]
"""Writes a file of this name and content; the caller that passes the function decides how durably."""


def write(directory: Path, splits: Mapping[str, Mapping[str, np.ndarray | Ragged]], facts: Facts) -> Manifest:
    """Write splits as canonical files, the manifest last; the same rows give the same bytes."""
    directory.mkdir(parents=True, exist_ok=True)
    stored = {
        split: {name: _column(directory, f"{split}.{name}.bin", one) for name, one in sorted(apart(columns).items())}
        for split, columns in sorted(splits.items())
    }
    return publish(directory, stored, facts, Path.write_bytes)


def publish(directory: Path, splits: Mapping[str, Mapping[str, StoredColumn]], facts: Facts, put: Put) -> Manifest:
    """Make columns that lie in a directory a dataset: their manifest is put there last."""
    stored = {split: dict(sorted(columns.items())) for split, columns in sorted(splits.items())}
    manifest = Manifest(facts, stored, _root(facts, stored))
    put(directory / MANIFEST, canonical(manifest.as_json()))
    return manifest


class Dataset:
    """An opened canonical dataset: columns are memory maps, `facts` and `root` come from the manifest."""

    def __init__(self, directory: Path, manifest: Manifest) -> None:
        self.directory = directory
        self.manifest = manifest
        self.facts = manifest.facts
        self.root = manifest.root

    @classmethod
    def open(cls, directory: Path, *, verify: bool = True) -> Dataset:
        """Open what `write` wrote; with `verify` every byte is checked against the manifest."""
        try:
            raw = (directory / MANIFEST).read_bytes()
        except FileNotFoundError:
            raise NotFound(f"there is no dataset in {str(directory)!r}", cure="Prepare it first.") from None
        try:
            manifest = Manifest.from_json(json.loads(raw))
        except (ValueError, KeyError, TypeError) as error:
            raise NotVerified(f"the manifest in {str(directory)!r} cannot be read", cure="Prepare it again.") from error
        dataset = cls(directory, manifest)
        if verify:
            dataset.verify()
        return dataset

    def columns(self, split: str) -> dict[str, np.ndarray]:
        """The columns of one split that have one entry per row, as memory maps; writing does not reach the files."""
        return together(self._stored(split))[0]

    def ragged(self, split: str) -> dict[str, Ragged]:
        """The columns of one split whose rows have any length, likewise."""
        return together(self._stored(split))[1]

    def _stored(self, split: str) -> dict[str, np.ndarray]:
        if split not in self.manifest.splits:
            raise NotFound(f"there is no split {split!r}", cure=f"Splits: {', '.join(self.manifest.splits)}.")
        return {name: mapped(self.directory, one) for name, one in self.manifest.splits[split].items()}

    def verify(self) -> None:
        """Raises `NotVerified` naming the first file whose bytes are not those that were written."""
        for split in self.manifest.splits.values():
            for one in split.values():
                if tuple(_pieces(_bytes(mapped(self.directory, one)))) != one.pieces:
                    raise NotVerified(f"{one.file!r} is not what was prepared", cure="Prepare the dataset again.")


def mapped(directory: Path, one: StoredColumn, mode: Literal["c", "r"] = "c") -> np.ndarray:
    """A stored column as a memory map; writing to it does not reach the file, and with mode `r` is an error."""
    if 0 in one.shape:
        return np.empty(one.shape, np.dtype(one.dtype))
    try:
        return np.memmap(directory / one.file, np.dtype(one.dtype), mode, shape=one.shape)
    except (OSError, ValueError) as error:
        raise NotVerified(f"{one.file!r} is missing or too short", cure="Prepare the dataset again.") from error


def _column(directory: Path, file: str, column: np.ndarray) -> StoredColumn:
    with ColumnFile(directory, file, column.dtype, column.shape[1:]) as writing:
        writing.append(column)
        return writing.finished()


def _bytes(column: np.ndarray) -> memoryview:
    return column.reshape(-1).view(np.uint8).data


def _pieces(data: memoryview) -> Iterator[str]:
    return (str(blake3(data[first : first + PIECE]).hexdigest()) for first in range(0, len(data), PIECE))


def _body(facts: Facts, splits: Mapping[str, Mapping[str, StoredColumn]]) -> ManifestForm:
    stored: Mapping[str, Mapping[str, StoredColumnForm]] = {
        split: {
            name: {"dtype": one.dtype, "shape": one.shape, "file": one.file, "pieces": one.pieces}
            for name, one in columns.items()
        }
        for split, columns in splits.items()
    }
    return {"format": FORMAT, "facts": facts.as_json(), "splits": stored}


def _root(facts: Facts, splits: Mapping[str, Mapping[str, StoredColumn]]) -> str:
    return str(blake3(canonical(_body(facts, splits))).hexdigest())


def canonical(value: Any) -> bytes:
    """The only JSON text of a value: sorted keys, no spaces."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
