"""Rows that a user's workload makes or reads itself; its code runs in this child only."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from blake3 import blake3

from agents.data_manager.findings import Findings
from agents.data_manager.source import DataTable, Kind, unusable
from contracts.errors import InvalidInput
from contracts.request.data import WorkloadData
from runtime.engine.ragged import Ragged, apart
from runtime.engine.workload import find, options_of

_PLACE = "data.workload"

Given = Mapping[str, np.ndarray | Ragged]


class WorkloadRows:
    """What a workload's `data` gives. Only it knows what it reads, so it is always asked; its rows are the digest."""

    def __init__(self, data: WorkloadData) -> None:
        self.name = data.workload
        workload = find(data.workload)
        options = options_of(workload, data.options, "data.options")
        try:
            given = workload().data(options)
        except FileNotFoundError as error:
            # A path that is not whole means another file wherever the swarm was started: said where one is not found.
            name = error.filename
            if not isinstance(name, str) or Path(name).is_absolute():
                raise
            place = next((f"data.options.{key}" for key, value in data.options.items() if value == name), _PLACE)
            message = f"there is no file {name!r} in {str(Path.cwd())!r}, the folder in which the swarm was started"
            raise unusable(place, message, f"Write the whole path, such as /data/{Path(name).name}.") from None
        self._splits = _splits_of(data.workload, given)
        self.digest = _digest(self._splits)

    def read(self, findings: Findings) -> DataTable:
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
        return DataTable(train.task, {}, labels, given=self._splits)


def _splits_of(name: str, given: Any) -> dict[str, Given]:
    """What `data` returned as columns per split; one split named "" when it did not split."""
    if given is None:
        cure = "Let it return columns, or name another source."
        raise unusable(_PLACE, f"the workload {name!r} has no data of its own", cure)
    if not isinstance(given, Mapping) or not given:
        kind = type(given).__name__
        raise unusable(_PLACE, f"`data` of {name!r} gave {kind}, not columns", "Return a mapping of names to arrays.")
    split = all(isinstance(columns, Mapping) for columns in given.values())
    splits: dict[str, Given] = {}
    for key, columns in (given if split else {"": given}).items():
        splits[key] = {str(name): _column(str(name), column) for name, column in columns.items()}
        sizes = {name: len(column) for name, column in splits[key].items()}
        if len(set(sizes.values())) != 1:
            cure = "Give every column one entry per row."
            raise unusable(_PLACE, f"the columns differ in length: {sizes}", cure)
    if split and not {"train", "val"} <= splits.keys() <= {"train", "val", "test"}:
        cure = "Return train, val and perhaps test."
        raise unusable(_PLACE, f"`data` of {name!r} gave the splits {', '.join(map(repr, splits))}", cure)
    return splits


def _column(name: str, given: Any) -> np.ndarray | Ragged:
    # Lists of bytes, and lists of arrays that differ in length, are ragged.
    first = given[0] if isinstance(given, list | tuple) and given else None
    differing = isinstance(first, np.ndarray | list) and len({len(row) for row in given}) > 1
    try:
        if isinstance(given, Ragged) or isinstance(first, bytes | bytearray) or differing:
            ragged = given if isinstance(given, Ragged) else Ragged.of(given)
            return dataclasses.replace(ragged, values=_numbers(name, np.asarray(ragged.values)))
    except InvalidInput as error:
        raise unusable(_PLACE, f"the column {name!r}: {error.message}", error.cure) from None
    column = np.asarray(given)
    if column.ndim == 0:
        raise unusable(_PLACE, f"the column {name!r} is one value", "Give arrays with one entry per row.")
    column = _numbers(name, column)
    return column.astype(np.int64) if name == "y" and column.dtype.kind in "iub" and column.ndim == 1 else column


def _numbers(name: str, column: np.ndarray) -> np.ndarray:
    if column.dtype.kind not in "fiub":
        cure = "Give arrays of floats, whole numbers or booleans, or a list of bytes."
        raise unusable(_PLACE, f"the column {name!r} has the dtype {column.dtype.str!r}", cure)
    return column.astype(np.float32) if column.dtype == np.float64 else column


def _digest(splits: Mapping[str, Given]) -> str:
    hasher = blake3()
    for split in sorted(splits):
        columns = apart(splits[split])
        for name in sorted(columns):
            column = np.ascontiguousarray(columns[name])
            hasher.update(f"{split}\0{name}\0{column.dtype.str}\0{column.shape}\0".encode())
            hasher.update(column.reshape(-1).view(np.uint8).data)
    return str(hasher.hexdigest())


def _table(columns: Given) -> DataTable:
    fixed = {name: column for name, column in columns.items() if isinstance(column, np.ndarray)}
    ragged = {name: column for name, column in columns.items() if isinstance(column, Ragged)}
    task: Kind = "other"
    y = fixed.get("y")
    if y is not None and y.dtype.kind == "f":
        task = "regression"
    elif y is not None and y.ndim == 1 and y.min(initial=0) >= 0:
        task = "classification"
    labels = _labels({"": columns}) if task == "classification" else ()
    return DataTable(task, fixed, labels, ragged=ragged)


def _labels(splits: Mapping[str, Given]) -> tuple[str, ...]:
    targets = [columns["y"] for columns in splits.values() if "y" in columns]
    classes = [y for y in targets if isinstance(y, np.ndarray) and y.dtype.kind == "i" and y.ndim == 1]
    return tuple(map(str, range(1 + max((int(y.max(initial=0)) for y in classes), default=-1))))


def _sound(columns: Given) -> np.ndarray:
    sound = np.ones(len(next(iter(columns.values()))), bool)
    for column in columns.values():
        if isinstance(column, Ragged):
            sound &= column.sound()
        elif column.dtype.kind == "f":
            sound &= np.isfinite(column.reshape(len(column), -1)).all(axis=1)
    return sound


def _finite(table: DataTable, findings: Findings) -> DataTable:
    sound = _sound({**table.columns, **table.ragged})
    for place in np.flatnonzero(~sound):
        findings.set_aside("non-finite", table.where(int(place)))
    return table if sound.all() else dataclasses.replace(table, chosen=np.flatnonzero(sound))
