"""What a cell says: a number, a word, or that there is nothing. It keeps no rows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from blake3 import blake3

from agents.data_manager.sources.blocks import Cells, RowBlock
from agents.data_manager.table import unusable
from runtime.model.cells import shortest

MISSING = frozenset({"", "?", "na", "n/a", "nan", "null", "none"})
_REMEMBERED, _LONG = 1 << 14, 200

Said = float | str | None
"""A number (perhaps not a finite one), a word, or nothing."""


@dataclass(frozen=True)
class NestedCell:
    """A cell that holds more than one value."""

    what: str

    def __str__(self) -> str:
        return self.what


class CellValues(dict[Any, Said]):
    """What each different cell says, worked out once."""

    def __missing__(self, cell: Any) -> Said:
        said = _said(cell)
        if isinstance(cell, str) and len(cell) > _LONG:
            return said
        if len(self) >= _REMEMBERED:
            self.clear()
        self[cell] = said
        return said


@dataclass(slots=True)
class CellCounts:
    """How many cells of one column are numbers, words, or missing."""

    numbers: int = 0
    words: int = 0
    missing: int = 0

    @property
    def numeric(self) -> bool:
        """A column of numbers may hold a few words by mistake, and is still one."""
        return self.numbers >= self.words and self.numbers > 0

    def count(self, cells: Cells, reading: CellValues) -> None:
        """Add some more cells of the column to the counts."""
        if finite(cells) is not None:
            self.numbers += len(cells)
            return
        for cell in cells:
            said = reading[cell]
            if said is None:
                self.missing += 1
            elif isinstance(said, str):
                self.words += 1
            else:
                self.numbers += 1


def profiled(blocks: Any, names: tuple[str, ...]) -> list[CellCounts]:
    """One pass over all rows; raises `InvalidRequest` for columns that have no values at all."""
    kinds = [CellCounts() for _ in names]
    readings = [CellValues() for _ in names]
    block: RowBlock
    for block in blocks:
        sound = [at for at in range(block.size) if at not in block.broken] if block.broken else None
        for kind, reading, cells in zip(kinds, readings, block.columns, strict=True):
            kind.count(cells if sound is None else [cells[at] for at in sound], reading)
    for name, kind in zip(names, kinds, strict=True):
        if not kind.numbers and not kind.words:
            cure = "Remove the column, or name it in `ignore`."
            raise unusable("data.path", f"the column {name!r} has no values", cure)
    return kinds


def finite(cells: Cells) -> np.ndarray | None:
    """The cells as finite numbers, or None when one of them is not."""
    if isinstance(cells, np.ndarray):
        return cells if np.isfinite(cells).all() else None
    try:
        found = np.fromiter(map(float, cells), np.float64, len(cells))
    except (ValueError, TypeError, OverflowError):
        return None
    # Python reads `1_000` as a number, tables do not.
    return None if _underscored(cells) or not np.isfinite(found).all() else found


def label_of(said: float | str) -> str:
    """What a cell is called as a class or a group."""
    return said if isinstance(said, str) else shortest(said)


def group_of(said: float | str) -> int:
    """A group as a number that depends on its name alone."""
    return int.from_bytes(blake3(label_of(said).encode()).digest(8), "little")


def time_of(said: float | str) -> float | None:
    """A moment as a number: it is one, or it is a date in ISO 8601; None for everything else."""
    if isinstance(said, float):
        return said if math.isfinite(said) else None
    try:
        moment = datetime.fromisoformat(said)
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _said(cell: Any) -> Said:
    text = str(cell).strip() if isinstance(cell, str | NestedCell) else ""
    if cell is None or (isinstance(cell, str) and text.lower() in MISSING):
        return None
    try:
        # Python reads `1_000` as a number, tables do not.
        return text if "_" in text else float(cell)
    except OverflowError:
        return math.inf
    except (ValueError, TypeError):
        return text or str(cell)


def _underscored(cells: Any) -> bool:
    try:
        return "_" in "".join(cells)
    except TypeError:
        return any("_" in cell for cell in cells if isinstance(cell, str))
