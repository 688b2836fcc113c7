"""What every source of rows is given and gives; and of its file: the digest, whether it has changed, its library."""

import importlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal, Protocol

import numpy as np
from blake3 import blake3

from agents.data_manager.findings import Findings
from agents.data_manager.scratch import Scratch
from contracts.errors import InvalidRequest, Problem
from runtime.engine.ragged import Ragged

Kind = Literal["classification", "regression", "sequences", "other"]
Columns = Mapping[str, np.ndarray]

Places = dict[str, np.ndarray]
"""For each split the places of its rows in the table's columns."""

Tell = Callable[[int, int], None]
"""How a source says how far it has read: bytes or rows so far, and of how many."""


@dataclass(frozen=True)
class DataTable:
    """Columns of equal length. `given` are splits that the source has made itself; then `columns` is empty.

    `ragged` are columns whose rows have any length; checks do not look into them.

    `rows` holds the number that each row has in its source, `names` its file where each row is one; without either a
    row is simply its place. `chosen` are the places that count, in order, when not all do. `groups` must not be torn
    apart, `times` say what came first. Only of a `foreign` table may rows be set aside.
    """

    task: Kind
    columns: Columns
    labels: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    rows: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    names: Sequence[str] = ()
    given: Mapping[str, Mapping[str, np.ndarray | Ragged]] = field(default_factory=dict)
    ragged: Mapping[str, Ragged] = field(default_factory=dict)
    chosen: np.ndarray | None = None
    groups: np.ndarray | None = None
    times: np.ndarray | None = None
    foreign: bool = False

    @property
    def length(self) -> int:
        """The number of rows, which all columns share."""
        columns: list[Sized] = [*self.columns.values(), *self.ragged.values()]
        return len(columns[0]) if columns else 0

    @property
    def places(self) -> np.ndarray:
        """The places of the rows that count."""
        return np.arange(self.length) if self.chosen is None else self.chosen

    def number(self, place: int) -> int:
        """The number of a row in its source, from 1."""
        return int(self.rows[place]) if len(self.rows) else place + 1

    def where(self, place: int) -> str:
        """What a row is called in findings."""
        return self.names[place] if self.names else f"row {self.number(place)}"


@dataclass(frozen=True)
class SourceContext:
    """What a source is given: folders that may be read, those whose pickles may be, who closes files, scratch space."""

    roots: Sequence[Path]
    trusted: Sequence[Path]
    files: ExitStack
    scratch: Scratch
    tell: Tell


class DataSource(Protocol):
    """One opened source: what it is called, the digest of what it is made of, and its rows."""

    name: str
    digest: str

    def read(self, findings: Findings) -> DataTable:
        """The sound rows; what was noticed goes to the findings. Raises `InvalidRequest` when they are unusable."""
        ...


def unusable(path: str, message: str, cure: str) -> InvalidRequest:
    """The error of a source with one problem."""
    return InvalidRequest([Problem(path, message, cure)])


_PIECE = 1 << 22


def digest_of(file: IO[bytes], tell: Tell) -> str:
    """BLAKE3 of all bytes; the file's position is its beginning afterwards."""
    hasher, read, size = blake3(), 0, os.fstat(file.fileno()).st_size
    file.seek(0)
    while piece := file.read(_PIECE):
        hasher.update(piece)
        read += len(piece)
        if read < size:
            tell(read, size)
    file.seek(0)
    return str(hasher.hexdigest())


@contextmanager
def unchanged(file: IO[bytes]) -> Iterator[None]:
    """Raise when the file was written to while a library read it, judged by its size and time."""
    before = _size_and_time(file)
    yield
    if _size_and_time(file) != before:
        raise changed()


def changed() -> Exception:
    """The error of a file that is no longer that of its digest."""
    return unusable("data.path", "the file changed while it was read", "Finish writing it, then ask again.")


def _size_and_time(file: IO[bytes]) -> tuple[int, int]:
    status = os.fstat(file.fileno())
    return status.st_size, status.st_mtime_ns


def import_extra(module: str, what: str) -> Any:
    """The module; raises `InvalidRequest` with the command that installs it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        cure = "Install it: pip install 'stigmergy-swarm[data]'"
        message = f"reading {what} needs the package {module.partition('.')[0]!r}, which is not here ({error})"
        raise unusable("data.source", message, cure) from None
