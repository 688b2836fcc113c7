"""A table of a file as blocks of cells, column by column; what a cell says, and what a target column asks for."""

import difflib
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, Protocol

import numpy as np
from blake3 import blake3

from agents.data_manager.findings import Findings
from agents.data_manager.source import unusable
from contracts.errors import Problem
from runtime.model.rows import shortest

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
    """How many cells of one column are numbers or words."""

    numbers: int = 0
    words: int = 0

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
            self.words += isinstance(said, str)
            self.numbers += isinstance(said, float)


def profile_columns(blocks: Any, names: tuple[str, ...]) -> list[CellCounts]:
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
        numbers = np.fromiter(map(float, cells), np.float64, len(cells))
    except (ValueError, TypeError, OverflowError):
        return None
    # Python reads `1_000` as a number, tables do not.
    try:
        underscored = "_" in "".join(cells)
    except TypeError:
        underscored = any("_" in cell for cell in cells if isinstance(cell, str))
    return None if underscored or not np.isfinite(numbers).all() else numbers


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


FEW = 20
"""Whole numbers with at most so many different values are taken for classes, unless the request says otherwise."""

MOST_CLASSES = 10_000

Target = tuple[Literal["classification", "regression"], np.ndarray, tuple[str, ...]]


def of_words(codes: np.ndarray, labels: Mapping[str, int], name: str, task: str, place: str) -> Target:
    """Classes out of words: `codes` says for each row which of the `labels` it has."""
    names = sorted(labels, key=_by_value)
    if task == "regression":
        cure = "Choose `task: classification`, or a target of numbers."
        raise unusable("data.task", f"the target {name!r} holds words such as {names[0]!r}", cure)
    _refuse_odd_classes(names, len(codes), name, place)
    order = np.empty(len(names), np.int64)
    order[[labels[label] for label in names]] = np.arange(len(names))
    return "classification", order[codes], tuple(names)


def of_numbers(values: np.ndarray, name: str, task: str, place: str, findings: Findings) -> Target:
    """Numbers as they are; few whole numbers, or any when classes are asked for, as classes."""
    different = np.unique(values)
    few = len(different) <= FEW and np.array_equal(different, np.round(different))
    if task == "auto" and few:
        what = f"{name!r} has {len(different)} different whole numbers: classes (`task: regression` for numbers)"
        findings.add("task-inferred", what)
    if task == "classification" or (task == "auto" and few):
        labels = [str(int(value)) if float(value).is_integer() else repr(float(value)) for value in different]
        _refuse_odd_classes(labels, len(values), name, place)
        return "classification", np.searchsorted(different, values).astype(np.int64), tuple(labels)
    if len(different) == 1:
        raise unusable(place, f"the target {name!r} never varies", "Choose another target.")
    return "regression", values.astype(np.float32), ()


def _refuse_odd_classes(labels: list[str], rows: int, name: str, place: str) -> None:
    if len(labels) == 1:
        raise unusable(place, f"all rows are of the class {labels[0]!r}", "Choose another target.")
    if len(labels) > min(MOST_CLASSES, max(2, rows // 2)):
        cure = "Choose another target, or `task: regression` when it is a number."
        raise unusable(place, f"the target {name!r} has {len(labels)} different values in {rows} rows", cure)


def _by_value(label: str) -> tuple[int, float, str]:
    """Numbers by size, then words by letters."""
    try:
        return 0, float(label), label
    except ValueError:
        return 1, 0.0, label
