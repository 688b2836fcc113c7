"""Rows as they come out of a source, before they are split; and the list of what was noticed about them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np

from contracts.errors import InvalidRequest, Problem

Kind = Literal["classification", "regression", "other"]
Severity = Literal["note", "warning"]
Columns = Mapping[str, np.ndarray]

Tell = Callable[[int, int], None]
"""How a source says how far it has read: bytes so far, and of how many."""

PLACES = 10
"""How many places of one kind of finding are named; all of them are counted."""


@dataclass(frozen=True)
class Table:
    """Columns of equal length. `given` are splits that the source has made itself; then `columns` is empty.

    `rows` holds the number that each row has in its source, for findings; empty when it is simply its place.
    """

    task: Kind
    columns: Columns
    labels: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    rows: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    given: Mapping[str, Columns] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """How many rows there are."""
        return len(next(iter(self.columns.values()))) if self.columns else 0

    def number(self, row: int) -> int:
        """The number of a row in its source, from 1."""
        return int(self.rows[row]) if len(self.rows) else row + 1

    def only(self, kept: np.ndarray) -> Table:
        """The table of some of its rows."""
        columns = {name: column[kept] for name, column in self.columns.items()}
        rows = self.rows[kept] if len(self.rows) else kept + 1
        return Table(self.task, columns, self.labels, self.features, rows)


class Source(Protocol):
    """One opened source: what it is called, the digest of what it is made of, and its rows."""

    name: str
    digest: str

    def read(self, findings: Findings) -> Table:
        """The sound rows; what was noticed goes to the findings. Raises `InvalidRequest` when they are unusable."""
        ...


class Findings:
    """What was noticed, each kind once, with its count and its first places."""

    def __init__(self) -> None:
        self._found: dict[str, dict[str, Any]] = {}

    def add(self, kind: str, where: str = "", *, count: int = 1, severity: Severity = "note") -> None:
        """One more thing of this kind; the severity of a kind is that of its last."""
        one = self._found.setdefault(kind, {"kind": kind, "count": 0, "where": [], "severity": severity})
        one["count"] += count
        one["severity"] = severity
        if where and len(one["where"]) < PLACES:
            one["where"].append(where)

    def count(self, kind: str) -> int:
        """How often this was noticed."""
        return int(self._found[kind]["count"]) if kind in self._found else 0

    def places(self, kind: str) -> list[str]:
        """Where it was noticed first."""
        return list(self._found[kind]["where"]) if kind in self._found else []

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self._found.values())


def unusable(path: str, message: str, cure: str) -> InvalidRequest:
    """The error of a source with one problem."""
    return InvalidRequest([Problem(path, message, cure)])
