"""A file of named columns, of any format, as features and target: read once, in bounded memory.

Blocks of cells become columns of numbers on the scratch disk; rows that cannot be used are named and left out.
"""

import marshal
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

import numpy as np

from agents.data_manager.findings import Findings
from agents.data_manager.scratch import GrowingColumn, Scratch, portions
from agents.data_manager.source import DataTable, unusable
from agents.data_manager.sources import cells
from contracts.errors import InvalidRequest
from contracts.request.data import Tables

CATEGORIES = 100

KEPT = 2 * np.dtype(np.float32).itemsize
"""Bytes of disk that a feature of a row takes while a dataset is made: in scratch files and in the dataset."""

Breaks = dict[int, tuple[str, str]]
"""By row of a block: the kind of its first break, and what exactly."""


@dataclass(frozen=True)
class ColumnPlan:
    """Which columns of a block are numbers, words, target, group and time; `names` are those of all columns."""

    names: tuple[str, ...]
    numeric: tuple[int, ...]
    worded: tuple[int, ...]
    target: int
    target_is_words: bool
    group: int | None
    time: int | None


class TableFile:
    """One opened file; its digest is that of its bytes. What its columns are is found first, then their values."""

    def __init__(self, data: Tables, tabular: cells.Tabular, scratch: Scratch) -> None:
        self.name = data.path
        self.digest = tabular.digest
        self._data, self._tabular, self._scratch = data, tabular, scratch
        self._spool = Spool(scratch.opened())

    def read(self, findings: Findings) -> DataTable:
        """The sound rows, words as one column per category."""
        names, plan = self._plan_columns()
        self._refuse_beyond_room(self._spool.rows, len(plan.numeric) + len(plan.worded))
        columns = TableColumns(plan, self._scratch)
        for block in self._spool.again():
            columns.take(block, findings)
        rows, values = columns.aside("rows"), columns.aside("target")
        if rows is None or values is None or not len(rows):
            raise unusable("data.path", "the table has no rows", "Give it some rows that are sound.")
        name, task = self._data.target, self._data.task
        if plan.target_is_words:
            kind, y, labels = cells.of_words(np.asarray(values), columns.labels, name, task, "data.target")
        else:
            kind, y, labels = cells.of_numbers(np.asarray(values), name, task, "data.target", findings)
        x, features = columns.features(names)
        return DataTable(
            kind,
            {"x": x, "y": y},
            labels,
            features,
            rows,
            groups=columns.aside("group"),
            times=columns.aside("time"),
            foreign=True,
        )

    def _plan_columns(self) -> tuple[tuple[str, ...], ColumnPlan]:
        """The columns that are read, and what each of them is for."""
        data, split = self._data, self._data.split
        header = self._tabular.names()
        named = {"data.target": data.target, "data.split.group": split.group, "data.split.time": split.time}
        named |= {f"data.ignore.{at}": name for at, name in enumerate(data.ignore)}
        asked = {place: name for place, name in named.items() if name is not None}
        if problems := [*cells.problems_of(header, asked)]:
            raise InvalidRequest(problems)
        names = tuple(name for name in header if name not in data.ignore)
        apart = {name for name in (data.target, split.group, split.time) if name}
        if data.target not in names or apart >= set(names):
            cure = "Ignore fewer columns: the target and at least one feature are needed."
            raise unusable("data.ignore", "no feature or no target is left", cure)
        self._refuse_beyond_room(self._tabular.rows(), len(names) - len(apart))
        kinds = cells.profile_columns(self._spool.keep(self._tabular.blocks(names)), names)
        features = [at for at, name in enumerate(names) if name not in apart]
        target = names.index(data.target)
        return names, ColumnPlan(
            names,
            tuple(at for at in features if kinds[at].numeric),
            tuple(at for at in features if not kinds[at].numeric),
            target,
            not kinds[target].numeric or data.task == "classification",
            names.index(split.group) if split.group else None,
            names.index(split.time) if split.time else None,
        )

    def _refuse_beyond_room(self, rows: int, features: int) -> None:
        """Features are kept here, and again in the dataset; what is found to be words takes more, counted later."""
        what = f"{rows} rows of {features} features"
        self._scratch.refuse_beyond(what, "data.path", disk=KEPT * rows * features, held=0)


class Spool:
    """Blocks that are written once and read once, and counted; columns of nothing but finite numbers stay numbers."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.rows = 0

    def keep(self, blocks: Iterator[cells.RowBlock]) -> Iterator[cells.RowBlock]:
        """The same blocks, written as they pass; what was found to be numbers is passed on as such."""
        for block in blocks:
            passed = cells.RowBlock(
                block.first, block.size, [_numbers(column) for column in block.columns], block.broken, block.lines
            )
            columns = [_pack(column) for column in passed.columns]
            # Only this process reads what it wrote here itself.
            marshal.dump((block.first, block.size, columns, dict(block.broken), list(block.lines)), self._file)
            self.rows += block.size
            yield passed

    def again(self) -> Iterator[cells.RowBlock]:
        """Read all blocks that were kept again, in their order."""
        self._file.flush()
        self._file.seek(0)
        while True:
            try:
                first, size, columns, broken, lines = marshal.load(self._file)  # noqa: S302 - our own file
            except EOFError:
                return
            yield cells.RowBlock(first, size, [_unpack(column) for column in columns], broken, lines)


def _numbers(column: cells.Cells) -> cells.Cells:
    numbers = cells.finite(column)
    return column if numbers is None else numbers


def _pack(column: cells.Cells) -> Any:
    if isinstance(column, np.ndarray):
        return column.astype(np.float64).tobytes()
    return [(cell.what,) if isinstance(cell, cells.NestedCell) else cell for cell in column]


def _unpack(packed: Any) -> cells.Cells:
    if isinstance(packed, bytes):
        return np.frombuffer(packed, np.float64)
    return [cells.NestedCell(*cell) if isinstance(cell, tuple) else cell for cell in packed]


class TableColumns:
    """The values of all sound rows so far."""

    def __init__(self, plan: ColumnPlan, scratch: Scratch) -> None:
        self._plan, self._scratch = plan, scratch
        kinds: dict[str, type] = {"target": np.int64 if plan.target_is_words else np.float64, "rows": np.int64}
        kinds |= {"group": np.uint64} if plan.group is not None else {}
        kinds |= {"time": np.float64} if plan.time is not None else {}
        self._numbers = scratch.column(np.float32, (len(plan.numeric),))
        self._categories = scratch.column(np.int32, (len(plan.worded),))
        self._aside = {name: scratch.column(kind) for name, kind in kinds.items()}
        self._codes: dict[int, dict[str, int]] = {at: {} for at in plan.worded}
        self._reading = [cells.CellValues() for _ in plan.names]
        self.labels: dict[str, int] = {}

    def take(self, block: cells.RowBlock, findings: Findings) -> None:
        """Keep the sound rows of a block, and note why the others are none."""
        breaks: Breaks = {at: ("corrupt", what) for at, what in block.broken.items()}
        values = {"target": self._target(block, breaks), "rows": np.arange(block.first, block.first + block.size)}
        numbers = [self._column(block, at, breaks) for at in self._plan.numeric]
        words = [self._words(block, at, breaks) for at in self._plan.worded]
        if self._plan.group is not None:
            values["group"] = self._groups(block, self._plan.group, breaks)
        if self._plan.time is not None:
            values["time"] = self._times(block, self._plan.time, breaks)
        findings.rows += block.size
        for at in sorted(breaks):
            kind, what = breaks[at]
            findings.set_aside(kind, f"{block.where(at)}: {what}")
        kept = np.ones(block.size, bool)
        kept[list(breaks)] = False
        self._keep(self._numbers, numbers, kept)
        self._keep(self._categories, words, kept)
        for name, growing in self._aside.items():
            growing.append(values[name][kept])

    def aside(self, name: str) -> np.ndarray | None:
        """For every row kept its `target` (a number, or the code of its label), number, group or time."""
        return self._aside[name].done() if name in self._aside else None

    def features(self, names: tuple[str, ...]) -> tuple[np.ndarray, tuple[str, ...]]:
        """All features as float32 in the order of the file, and what they are called; words are a feature each."""
        numbers, codes = self._numbers.done(), self._categories.done()
        features = [at for at in range(len(names)) if at in self._plan.numeric or at in self._plan.worded]
        if not self._plan.worded:
            return numbers, tuple(names[at] for at in features)
        parts: list[tuple[int, int | None]] = []
        called: list[str] = []
        for at in features:
            if at in self._plan.numeric:
                parts.append((self._plan.numeric.index(at), None))
                called.append(names[at])
            else:
                place, words = self._plan.worded.index(at), self._codes[at]
                parts += [(place, words[word]) for word in sorted(words)]
                called += [f"{names[at]}={word}" for word in sorted(words)]
        what = f"{len(codes)} rows with {len(parts)} features, words as one each,"
        self._scratch.refuse_beyond(what, "data.path", disk=KEPT * len(codes) * len(parts), held=0)
        made = self._scratch.column(np.float32, (len(parts),))
        for part in portions(np.broadcast_to(np.float32(0), (len(codes), len(parts)))):
            columns = [numbers[part, at] if code is None else codes[part, at] == code for at, code in parts]
            made.append(np.stack(columns, axis=1, dtype=np.float32, casting="unsafe"))
        return made.done(), tuple(called)

    @staticmethod
    def _keep(growing: GrowingColumn, columns: list[np.ndarray], kept: np.ndarray) -> None:
        if columns:
            growing.append(np.stack(columns, axis=1)[kept])
        else:
            growing.append(np.empty((int(kept.sum()), 0)))

    def _said(
        self, block: cells.RowBlock, at: int, breaks: Breaks, missing: str = "missing"
    ) -> Iterator[tuple[int, Any, float | str]]:
        """Row, cell and what it says, for all cells of a column that say something; the others break their rows."""
        reading, what = self._reading[at], f"no value in {self._plan.names[at]!r}"
        for row, cell in enumerate(block.columns[at]):
            said = reading[cell]
            if said is None:
                breaks.setdefault(row, (missing, what))
            else:
                yield row, cell, said

    def _column(self, block: cells.RowBlock, at: int, breaks: Breaks, missing: str = "missing") -> np.ndarray:
        """One column as float32, or as float64 when it is the target."""
        numbers, name = cells.finite(block.columns[at]), self._plan.names[at]
        values = np.zeros(block.size) if numbers is None else numbers
        if numbers is None:
            for row, cell, said in self._said(block, at, breaks, missing):
                if isinstance(said, str):
                    breaks.setdefault(row, ("corrupt", f"{_shown(cell)} in {name!r} is not a number"))
                elif not np.isfinite(said):
                    breaks.setdefault(row, ("non-finite", f"{_shown(cell)} in {name!r}"))
                else:
                    values[row] = said
        if at == self._plan.target:
            return values
        with np.errstate(over="ignore"):
            stored: np.ndarray = values.astype(np.float32)
        for beyond in np.flatnonzero(~np.isfinite(stored)):
            breaks.setdefault(int(beyond), ("non-finite", f"a value beyond 3.4e38 in {name!r}"))
        return stored

    def _target(self, block: cells.RowBlock, breaks: Breaks) -> np.ndarray:
        at, name = self._plan.target, self._plan.names[self._plan.target]
        if not self._plan.target_is_words:
            return self._column(block, at, breaks, "unlabelled")
        codes = np.zeros(block.size, np.int64)
        for row, cell, said in self._said(block, at, breaks, "unlabelled"):
            if isinstance(cell, cells.NestedCell):
                breaks.setdefault(row, ("corrupt", f"{cell} in {name!r} is no label"))
            elif row not in breaks:
                codes[row] = self.labels.setdefault(cells.label_of(said), len(self.labels))
        if len(self.labels) > 100 * cells.MOST_CLASSES:
            cure = "Choose another target, or `task: regression` when it is a number."
            raise unusable("data.target", f"the target {name!r} has over {len(self.labels)} different values", cure)
        return codes

    def _words(self, block: cells.RowBlock, at: int, breaks: Breaks) -> np.ndarray:
        name, known = self._plan.names[at], self._codes[at]
        codes = np.zeros(block.size, np.int32)
        for row, cell, said in self._said(block, at, breaks):
            if isinstance(cell, cells.NestedCell):
                breaks.setdefault(row, ("corrupt", f"{cell} in {name!r} is neither a number nor a word"))
            elif row not in breaks:
                codes[row] = known.setdefault(cells.label_of(said), len(known))
        if len(known) > CATEGORIES:
            cure = "Remove the column or name it in `ignore`, or group its values."
            raise unusable("data.path", f"the column {name!r} holds more than {CATEGORIES} different words", cure)
        return codes

    def _groups(self, block: cells.RowBlock, at: int, breaks: Breaks) -> np.ndarray:
        numbers = np.zeros(block.size, np.uint64)
        known: dict[str, int] = {}
        for row, _, said in self._said(block, at, breaks):
            label = cells.label_of(said)
            numbers[row] = known[label] if label in known else known.setdefault(label, cells.group_of(said))
        return numbers

    def _times(self, block: cells.RowBlock, at: int, breaks: Breaks) -> np.ndarray:
        moments = np.zeros(block.size)
        for row, cell, said in self._said(block, at, breaks):
            moment = cells.time_of(said)
            if moment is None:
                what = f"{_shown(cell)} in {self._plan.names[at]!r} is neither a number nor a date in ISO 8601"
                breaks.setdefault(row, ("corrupt", what))
            else:
                moments[row] = moment
        return moments


def _shown(cell: object) -> str:
    return str(cell) if isinstance(cell, cells.NestedCell) else repr(cell[:40] if isinstance(cell, str) else cell)
