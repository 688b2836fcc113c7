"""What the cells of a CSV column are: numbers or words. It keeps counts, no values."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from agents.data_manager.sources.csv_text import Header, Row
from agents.data_manager.table import unusable

MISSING = frozenset({"", "?", "na", "n/a", "nan", "null", "none"})


@dataclass(slots=True)
class Kind:
    """How many cells of one column are numbers, words, or missing."""

    numbers: int = 0
    words: int = 0
    missing: int = 0

    @property
    def numeric(self) -> bool:
        """A column of numbers may hold a few words by mistake, and is still one."""
        return self.numbers >= self.words and self.numbers > 0


@dataclass(frozen=True)
class Profile:
    """How many rows a table has, and of what kind its columns are."""

    rows: int
    kinds: tuple[Kind, ...]


def profiled(rows: Iterable[Row], header: Header) -> Profile:
    """One pass over all rows; raises `InvalidRequest` for features that have no values at all."""
    width, count = len(header.names), 0
    kinds = [Kind() for _ in range(width)]
    whole = 0
    for row in rows:
        count += 1
        if len(row.cells) != width:
            continue
        if all_numbers(row.cells) is not None:
            whole += 1
            continue
        for kind, cell in zip(kinds, row.cells, strict=True):
            _count(kind, cell)
    for kind in kinds:
        kind.numbers += whole
    for name, kind in zip(header.names, kinds, strict=True):
        if not kind.numbers and not kind.words:
            raise unusable("data.path", f"the column {name!r} has no values", "Remove the column.")
    return Profile(count, tuple(kinds))


def all_numbers(cells: list[str]) -> list[float] | None:
    """The cells as finite numbers, or None when one of them is not."""
    try:
        found = [float(cell) for cell in cells]
    except ValueError:
        return None
    # A sum is finite only if every term is; Python reads `1_000` as a number, tables do not.
    return found if math.isfinite(sum(found)) and "_" not in "".join(cells) else None


def is_missing(cell: str) -> bool:
    """Whether a cell says that there is no value."""
    return cell.strip().lower() in MISSING


def number(cell: str) -> float | None:
    """A cell as a number (perhaps not a finite one), or None when it is something else."""
    if "_" in cell:
        return None
    try:
        return float(cell)
    except ValueError:
        return None


def _count(kind: Kind, cell: str) -> None:
    if is_missing(cell):
        kind.missing += 1
    elif number(cell) is None:
        kind.words += 1
    else:
        kind.numbers += 1
