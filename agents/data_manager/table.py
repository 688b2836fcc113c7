"""Rows as they come out of a source, before they are split: in arrays, or in scratch files mapped as arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Sized
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from agents.data_manager.findings import Findings
from agents.data_manager.scratch import Scratch
from contracts.errors import InvalidRequest, Problem
from runtime.engine.ragged import Ragged

Kind = Literal["classification", "regression", "sequences", "other"]
Columns = Mapping[str, np.ndarray]

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
        held: list[Sized] = [*self.columns.values(), *self.ragged.values()]
        return len(held[0]) if held else 0

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
