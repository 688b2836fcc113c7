"""A table as blocks of rows, column by column: the form in which every file of named columns is read."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from contracts.errors import Problem

CELLS = 1 << 15
"""About how many cells a block has."""

Cells = Sequence[Any] | np.ndarray
"""The cells of one column: texts and numbers as they were read, None where there is nothing; or finite numbers."""


@dataclass(frozen=True)
class RowBlock:
    """Consecutive rows. `broken` are those without cells, and why; `lines` say where in the file each row ends."""

    first: int
    size: int
    columns: Sequence[Cells]
    broken: Mapping[int, str] = field(default_factory=dict)
    lines: Sequence[int] = ()

    def where(self, at: int) -> str:
        """What a row of the block is called in findings."""
        line = f" (line {self.lines[at]})" if self.lines else ""
        return f"row {self.first + at}{line}"


class Tabular(Protocol):
    """An opened file of named columns, read as often as needed."""

    digest: str

    def names(self) -> tuple[str, ...]:
        """The columns; raises `InvalidRequest` when the file has none."""
        ...

    def rows(self) -> int:
        """How many rows the file says that it has; 0 where it does not say."""
        ...

    def blocks(self, names: tuple[str, ...]) -> Iterator[RowBlock]:
        """All rows, with these columns in this order; raises when the file is no longer that of the digest."""
        ...


def problems_of(names: Sequence[str], named: Mapping[str, str]) -> Iterator[Problem]:
    """All that is wrong with a table's columns; `named` are those that the request names, by the place that does."""
    if len(names) < 2:
        cure = "Give it a first line with the columns' names, and at least two columns."
        yield Problem("data.path", f"the table has {len(names)} columns", cure)
        return
    for at, name in enumerate(names, 1):
        if not name:
            cure = "Name it or remove it (pandas writes such a column without `index=False`)."
            yield Problem("data.path", f"column {at} has no name", cure)
    for name, count in Counter(names).items():
        if name and count > 1:
            yield Problem("data.path", f"{count} columns are called {name!r}", "Give each column a name of its own.")
    for place, name in named.items():
        if name not in names:
            near = difflib.get_close_matches(name, names, 1)
            cure = f"Did you mean {near[0]!r}?" if near else f"Columns: {', '.join(names[:20])}."
            yield Problem(place, f"there is no column {name!r}", cure)
