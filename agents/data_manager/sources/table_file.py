"""A file of named columns, of any format, as features and target: read once, in bounded memory."""

from __future__ import annotations

import marshal
from collections.abc import Iterator
from typing import IO, Any

import numpy as np

from agents.data_manager.findings import Findings
from agents.data_manager.scratch import Scratch
from agents.data_manager.source import DataTable, unusable
from agents.data_manager.sources.cells import (
    Cells,
    NestedCell,
    RowBlock,
    Tabular,
    finite,
    of_numbers,
    of_words,
    problems_of,
    profiled,
)
from agents.data_manager.sources.filling import KEPT, ColumnPlan, Filling
from contracts.errors import InvalidRequest
from contracts.request.data import Tables


class TableFile:
    """One opened file; its digest is that of its bytes. What its columns are is found first, then their values."""

    def __init__(self, data: Tables, tabular: Tabular, scratch: Scratch) -> None:
        self.name = data.path
        self.digest = tabular.digest
        self._data, self._tabular, self._scratch = data, tabular, scratch
        self._spool = Spool(scratch.opened())

    def read(self, findings: Findings) -> DataTable:
        """The sound rows, words as one column per category."""
        names, plan = self._planned()
        self._refuse_beyond_room(self._spool.rows, len(plan.numeric) + len(plan.worded))
        filling = Filling(plan, self._scratch)
        for block in self._spool.again():
            filling.take(block, findings)
        rows, values = filling.aside("rows"), filling.aside("target")
        if rows is None or values is None or not len(rows):
            raise unusable("data.path", "the table has no rows", "Give it some rows that are sound.")
        name, task = self._data.target, self._data.task
        if plan.target_is_words:
            kind, y, labels = of_words(np.asarray(values), filling.labels, name, task, "data.target")
        else:
            kind, y, labels = of_numbers(np.asarray(values), name, task, "data.target", findings)
        x, features = filling.features(names)
        return DataTable(
            kind,
            {"x": x, "y": y},
            labels,
            features,
            rows,
            groups=filling.aside("group"),
            times=filling.aside("time"),
            foreign=True,
        )

    def _planned(self) -> tuple[tuple[str, ...], ColumnPlan]:
        """The columns that are read, and what each of them is for."""
        data, split = self._data, self._data.split
        found = self._tabular.names()
        named = {"data.target": data.target, "data.split.group": split.group, "data.split.time": split.time}
        named |= {f"data.ignore.{at}": name for at, name in enumerate(data.ignore)}
        asked = {place: name for place, name in named.items() if name is not None}
        if problems := [*problems_of(found, asked)]:
            raise InvalidRequest(problems)
        names = tuple(name for name in found if name not in data.ignore)
        apart = {name for name in (data.target, split.group, split.time) if name}
        if data.target not in names or apart >= set(names):
            cure = "Ignore fewer columns: the target and at least one feature are needed."
            raise unusable("data.ignore", "no feature or no target is left", cure)
        self._refuse_beyond_room(self._tabular.rows(), len(names) - len(apart))
        kinds = profiled(self._spool.kept(self._tabular.blocks(names)), names)
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

    def kept(self, blocks: Iterator[RowBlock]) -> Iterator[RowBlock]:
        """The same blocks, written as they pass; what was found to be numbers is passed on as such."""
        for block in blocks:
            passed = RowBlock(
                block.first, block.size, [_numbers(one) for one in block.columns], block.broken, block.lines
            )
            columns = [_packed(one) for one in passed.columns]
            # Only this process reads what it wrote here itself.
            marshal.dump((block.first, block.size, columns, dict(block.broken), list(block.lines)), self._file)
            self.rows += block.size
            yield passed

    def again(self) -> Iterator[RowBlock]:
        """Read all blocks that were kept again, in their order."""
        self._file.flush()
        self._file.seek(0)
        while True:
            try:
                first, size, columns, broken, lines = marshal.load(self._file)  # noqa: S302 - our own file
            except EOFError:
                return
            yield RowBlock(first, size, [_unpacked(one) for one in columns], broken, lines)


def _numbers(cells: Cells) -> Cells:
    found = finite(cells)
    return cells if found is None else found


def _packed(cells: Cells) -> Any:
    if isinstance(cells, np.ndarray):
        return cells.astype(np.float64).tobytes()
    return [(cell.what,) if isinstance(cell, NestedCell) else cell for cell in cells]


def _unpacked(packed: Any) -> Cells:
    if isinstance(packed, bytes):
        return np.frombuffer(packed, np.float64)
    return [NestedCell(*cell) if isinstance(cell, tuple) else cell for cell in packed]
