"""Blocks of cells become columns of numbers on the scratch disk; rows that cannot be used are named and left out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from agents.data_manager.findings import Findings
from agents.data_manager.scratch import Growing, Scratch, portions
from agents.data_manager.source import unusable
from agents.data_manager.sources.cells import (
    MOST_CLASSES,
    CellValues,
    NestedCell,
    RowBlock,
    finite,
    group_of,
    label_of,
    time_of,
)

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


class Filling:
    """The values of all sound rows so far."""

    def __init__(self, plan: ColumnPlan, scratch: Scratch) -> None:
        self._plan, self._scratch = plan, scratch
        self._numbers = scratch.column(np.float32, (len(plan.numeric),))
        self._categories = scratch.column(np.int32, (len(plan.worded),))
        self._aside = {name: scratch.column(kind) for name, kind in self._kinds().items()}
        self._codes: dict[int, dict[str, int]] = {at: {} for at in plan.worded}
        self._reading = [CellValues() for _ in plan.names]
        self.labels: dict[str, int] = {}

    def take(self, block: RowBlock, findings: Findings) -> None:
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

    def _kinds(self) -> dict[str, type]:
        kinds: dict[str, type] = {"target": np.int64 if self._plan.target_is_words else np.float64, "rows": np.int64}
        kinds |= {"group": np.uint64} if self._plan.group is not None else {}
        return kinds | ({"time": np.float64} if self._plan.time is not None else {})

    @staticmethod
    def _keep(growing: Growing, columns: list[np.ndarray], kept: np.ndarray) -> None:
        if columns:
            growing.append(np.stack(columns, axis=1)[kept])
        else:
            growing.append(np.empty((int(kept.sum()), 0)))

    def _column(self, block: RowBlock, at: int, breaks: Breaks, missing: str = "missing") -> np.ndarray:
        """One column as float32, or as float64 when it is the target."""
        values = finite(block.columns[at])
        if values is None:
            values = self._slowly(block, at, breaks, missing)
        if at == self._plan.target:
            return values
        with np.errstate(over="ignore"):
            found: np.ndarray = values.astype(np.float32)
        for row in np.flatnonzero(~np.isfinite(found)):
            breaks.setdefault(int(row), ("non-finite", f"a value beyond 3.4e38 in {self._plan.names[at]!r}"))
        return found

    def _slowly(self, block: RowBlock, at: int, breaks: Breaks, missing: str) -> np.ndarray:
        name, reading, cells = self._plan.names[at], self._reading[at], block.columns[at]
        values = np.zeros(block.size)
        for row, cell in enumerate(cells):
            said = reading[cell]
            if said is None:
                breaks.setdefault(row, (missing, f"no value in {name!r}"))
            elif isinstance(said, str):
                breaks.setdefault(row, ("corrupt", f"{_shown(cell)} in {name!r} is not a number"))
            elif not np.isfinite(said):
                breaks.setdefault(row, ("non-finite", f"{_shown(cell)} in {name!r}"))
            else:
                values[row] = said
        return values

    def _target(self, block: RowBlock, breaks: Breaks) -> np.ndarray:
        at = self._plan.target
        if not self._plan.target_is_words:
            return self._column(block, at, breaks, "unlabelled")
        found = np.zeros(block.size, np.int64)
        name, reading = self._plan.names[at], self._reading[at]
        for row, cell in enumerate(block.columns[at]):
            said = reading[cell]
            if said is None:
                breaks.setdefault(row, ("unlabelled", f"no value in {name!r}"))
            elif isinstance(cell, NestedCell):
                breaks.setdefault(row, ("corrupt", f"{cell} in {name!r} is no label"))
            elif row not in breaks:
                found[row] = self.labels.setdefault(label_of(said), len(self.labels))
        if len(self.labels) > 100 * MOST_CLASSES:
            cure = "Choose another target, or `task: regression` when it is a number."
            raise unusable("data.target", f"the target {name!r} has over {len(self.labels)} different values", cure)
        return found

    def _words(self, block: RowBlock, at: int, breaks: Breaks) -> np.ndarray:
        name, reading, codes = self._plan.names[at], self._reading[at], self._codes[at]
        found = np.zeros(block.size, np.int32)
        for row, cell in enumerate(block.columns[at]):
            said = reading[cell]
            if said is None:
                breaks.setdefault(row, ("missing", f"no value in {name!r}"))
            elif isinstance(cell, NestedCell):
                breaks.setdefault(row, ("corrupt", f"{cell} in {name!r} is neither a number nor a word"))
            elif row not in breaks:
                word = label_of(said)
                code = codes.get(word)
                found[row] = codes.setdefault(word, len(codes)) if code is None else code
        if len(codes) > CATEGORIES:
            cure = "Remove the column or name it in `ignore`, or group its values."
            raise unusable("data.path", f"the column {name!r} holds more than {CATEGORIES} different words", cure)
        return found

    def _groups(self, block: RowBlock, at: int, breaks: Breaks) -> np.ndarray:
        found, reading = np.zeros(block.size, np.uint64), self._reading[at]
        groups: dict[str, int] = {}
        for row, cell in enumerate(block.columns[at]):
            said = reading[cell]
            if said is None:
                breaks.setdefault(row, ("missing", f"no value in {self._plan.names[at]!r}"))
            else:
                label = label_of(said)
                found[row] = groups[label] if label in groups else groups.setdefault(label, group_of(said))
        return found

    def _times(self, block: RowBlock, at: int, breaks: Breaks) -> np.ndarray:
        found, name = np.zeros(block.size), self._plan.names[at]
        for row, cell in enumerate(block.columns[at]):
            said = self._reading[at][cell]
            moment = None if said is None else time_of(said)
            if said is None:
                breaks.setdefault(row, ("missing", f"no value in {name!r}"))
            elif moment is None:
                what = f"{_shown(cell)} in {name!r} is neither a number nor a date in ISO 8601"
                breaks.setdefault(row, ("corrupt", what))
            else:
                found[row] = moment
        return found


def _shown(cell: object) -> str:
    return str(cell) if isinstance(cell, NestedCell) else repr(cell[:40] if isinstance(cell, str) else cell)
