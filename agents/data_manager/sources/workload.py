"""Rows that a user's workload makes or reads itself; its code runs in this child only."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from blake3 import blake3

from agents.data_manager.findings import Findings
from agents.data_manager.table import Columns, Kind, Table, unusable
from contracts.request.data import WorkloadData
from runtime.engine.workload import find, options_of

_PLACE = "data.workload"


class OwnRows:
    """What a workload's `data` gives. Only it knows what it reads, so it is always asked; its rows are the digest."""

    def __init__(self, data: WorkloadData) -> None:
        self.name = data.workload
        workload = find(data.workload)
        given = workload().data(options_of(workload, data.options, "data.options"))
        self._splits = _shaped(data.workload, given)
        self.digest = _digest(self._splits)

    def read(self, findings: Findings) -> Table:
        """The rows, or the splits that the workload made; rows with numbers that are not finite are left out."""
        if "" in self._splits:
            table = _table(self._splits[""])
            findings.rows = table.length
            return _finite(table, findings)
        for name, columns in self._splits.items():
            if broken := int((~_sound(columns)).sum()):
                message = f"{broken} rows of the split {name!r} hold numbers that are not finite"
                raise unusable(_PLACE, message, "Leave such rows out in `data`.")
        findings.add("workload-splits", ", ".join(self._splits))
        train = _table(self._splits["train"])
        labels = _labels(self._splits) if train.task == "classification" else ()
        return Table(train.task, {}, labels, given=self._splits)


def _shaped(name: str, given: Any) -> dict[str, Columns]:
    """What `data` returned as columns per split; one split named "" when it did not split."""
    if given is None:
        cure = "Let it return columns, or name another source."
        raise unusable(_PLACE, f"the workload {name!r} has no data of its own", cure)
    if not isinstance(given, Mapping) or not given:
        kind = type(given).__name__
        raise unusable(_PLACE, f"`data` of {name!r} gave {kind}, not columns", "Return a mapping of names to arrays.")
    split = all(isinstance(one, Mapping) for one in given.values())
    splits = {key: _columns(columns) for key, columns in (given if split else {"": given}).items()}
    if split and not {"train", "val"} <= splits.keys() <= {"train", "val", "test"}:
        cure = "Return train, val and perhaps test."
        raise unusable(_PLACE, f"`data` of {name!r} gave the splits {', '.join(map(repr, splits))}", cure)
    return splits


def _columns(given: Mapping[str, Any]) -> Columns:
    found = {str(name): _column(str(name), column) for name, column in given.items()}
    sizes = {name: len(column) for name, column in found.items()}
    if len(set(sizes.values())) != 1:
        raise unusable(_PLACE, f"the columns differ in length: {sizes}", "Give every column one entry per row.")
    return found


def _column(name: str, given: Any) -> np.ndarray:
    column = np.asarray(given)
    if column.dtype.kind not in "fiub" or column.ndim == 0:
        cure = "Give arrays of floats, whole numbers or booleans with one entry per row."
        raise unusable(_PLACE, f"the column {name!r} has the dtype {column.dtype.str!r}", cure)
    if column.dtype == np.float64:
        return column.astype(np.float32)
    return column.astype(np.int64) if name == "y" and column.dtype.kind in "iub" and column.ndim == 1 else column


def _digest(splits: Mapping[str, Columns]) -> str:
    hasher = blake3()
    for split in sorted(splits):
        for name in sorted(splits[split]):
            column = np.ascontiguousarray(splits[split][name])
            hasher.update(f"{split}\0{name}\0{column.dtype.str}\0{column.shape}\0".encode())
            hasher.update(column.reshape(-1).view(np.uint8).data)
    return str(hasher.hexdigest())


def _table(columns: Columns) -> Table:
    task: Kind = "other"
    y = columns.get("y")
    if y is not None and y.dtype.kind == "f":
        task = "regression"
    elif y is not None and y.ndim == 1 and y.min(initial=0) >= 0:
        task = "classification"
    return Table(task, columns, _labels({"": columns}) if task == "classification" else ())


def _labels(splits: Mapping[str, Columns]) -> tuple[str, ...]:
    classes = [one["y"] for one in splits.values() if "y" in one and one["y"].dtype.kind == "i" and one["y"].ndim == 1]
    return tuple(map(str, range(1 + max((int(y.max(initial=0)) for y in classes), default=-1))))


def _sound(columns: Columns) -> np.ndarray:
    floats = [one.reshape(len(one), -1) for one in columns.values() if one.dtype.kind == "f"]
    size = len(next(iter(columns.values())))
    sound = np.ones(size, bool)
    for one in floats:
        sound &= np.isfinite(one).all(axis=1)
    return sound


def _finite(table: Table, findings: Findings) -> Table:
    sound = _sound(table.columns)
    for place in np.flatnonzero(~sound):
        findings.set_aside("non-finite", table.where(int(place)))
    return table if sound.all() else dataclasses.replace(table, chosen=np.flatnonzero(sound))
