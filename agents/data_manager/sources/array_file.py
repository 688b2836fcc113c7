"""Arrays in a file of any format as features and target: one pass, portion by portion."""

import math
from collections.abc import Mapping
from typing import Protocol

import numpy as np

from agents.data_manager.findings import Findings
from agents.data_manager.scratch import CHUNK, GrowingColumn, Scratch
from agents.data_manager.source import DataTable, Tell, unusable
from agents.data_manager.sources.cells import CellValues, Said, group_of, label_of, of_numbers, of_words, time_of
from contracts.request.data import Arrays

_BESIDE = 8
"""Bytes that a row takes for its number, and for its value in any array but `x`."""

_STORED_AS = {"y": np.float64, "rows": np.int64, "group": np.uint64, "time": np.float64}
_IMAGE_AXES = {"none": 0, "hw": 2, "hwc": 3, "chw": 3}


class RawArray(Protocol):
    """One array of a file: its dtype, its shape, and its rows from one place to another."""

    dtype: np.dtype
    shape: tuple[int, ...]

    def rows(self, first: int, last: int) -> np.ndarray:
        """The rows from `first` to before `last`."""
        ...


class OpenArrayFile(Protocol):
    """An opened file of arrays: hands out arrays by name, and notices at the end whether the file has changed."""

    digest: str

    def array(self, name: str, place: str) -> RawArray:
        """The array of that name; raises `InvalidRequest` naming `place` in the request when there is none."""
        ...

    def checked(self, findings: Findings) -> None:
        """Raise when the file has changed while it was read; called at the end."""
        ...


class ArrayFile:
    """One opened file; its digest is that of its bytes."""

    def __init__(self, data: Arrays, opened: OpenArrayFile, scratch: Scratch, tell: Tell) -> None:
        self.name = data.path
        self.digest = opened.digest
        self._data, self._opened, self._scratch, self._tell = data, opened, scratch, tell

    def read(self, findings: Findings) -> DataTable:
        """The sound rows: those with finite numbers and a label."""
        arrays = self._arrays()
        self._refuse_beyond_room(arrays)
        x = arrays["x"]
        kept = {role: self._scratch.column(_STORED_AS[role]) for role in (*arrays, "rows") if role != "x"}
        shape = self._framed(np.empty((0, *x.shape[1:]), np.bool_)).shape[1:]
        kept["x"] = self._scratch.column(_kept_as(x.dtype), shape)
        labels: dict[str, int] = {}
        step = max(1, CHUNK // max(1, x.dtype.itemsize * math.prod(x.shape[1:])))
        for first in range(0, x.shape[0], step):
            last = min(first + step, x.shape[0])
            parts = {name: array.rows(first, last) for name, array in arrays.items()}
            self._take(first, parts, labels, kept, findings)
            self._tell(last, x.shape[0])
        self._opened.checked(findings)
        done = {name: column.done() for name, column in kept.items()}
        if not len(done["rows"]):
            raise unusable("data.path", "the arrays have no rows", "Give them some rows that are sound.")
        name, task = self._data.y, self._data.task
        if labels:
            kind, y, named = of_words(done["y"].astype(np.int64), labels, name, task, "data.y")
        else:
            kind, y, named = of_numbers(np.asarray(done["y"]), name, task, "data.y", findings)
        columns = {"x": done["x"], "y": y}
        return DataTable(
            kind, columns, named, (), done["rows"], groups=done.get("group"), times=done.get("time"), foreign=True
        )

    def _arrays(self) -> Mapping[str, RawArray]:
        data = self._data
        named = {"x": (data.x, "data.x"), "y": (data.y, "data.y")}
        named |= {"group": (data.split.group, "data.split.group")} if data.split.group else {}
        named |= {"time": (data.split.time, "data.split.time")} if data.split.time else {}
        arrays = {role: self._opened.array(str(name), place) for role, (name, place) in named.items()}
        rows = {role: array.shape[0] if array.shape else 0 for role, array in arrays.items()}
        if len(set(rows.values())) != 1:
            raise unusable("data.path", f"the arrays differ in length: {rows}", "Give each one entry per row.")
        for role, array in arrays.items():
            if role != "x" and len(array.shape) == 2 and array.shape[1] == 1:
                arrays[role] = SingleColumn(array)
            elif role != "x" and len(array.shape) != 1:
                message = f"{named[role][0]!r} has the shape {array.shape}"
                raise unusable(named[role][1], message, "Give one value per row.")
        x = arrays["x"]
        if x.dtype.kind not in "fiub":
            cure = "Save features as numbers."
            raise unusable("data.x", f"{data.x!r} has the dtype {x.dtype.str!r}", cure)
        axes = _IMAGE_AXES[data.pixels]
        if len(x.shape) < 2 or (axes and len(x.shape) != axes + 1):
            cure = "Give one entry per row, with one axis for features or those that `pixels` names."
            raise unusable("data.x", f"{data.x!r} has the shape {x.shape}", cure)
        return arrays

    def _refuse_beyond_room(self, arrays: Mapping[str, RawArray]) -> None:
        """A few bytes of a file can declare any shape: all rows go to the disk, one at a time is held."""
        x = arrays["x"]
        row = math.prod(x.shape[1:])
        kept = x.shape[0] * (row * _kept_as(x.dtype).itemsize + _BESIDE * len(arrays))
        shown = f"{self._data.x!r} with the shape {x.shape}"
        self._scratch.refuse_beyond(shown, "data.x", disk=kept, held=row * x.dtype.itemsize)

    def _take(
        self,
        first: int,
        parts: Mapping[str, np.ndarray],
        labels: dict[str, int],
        kept: Mapping[str, GrowingColumn],
        findings: Findings,
    ) -> None:
        size = len(parts["x"])
        findings.rows += size
        with np.errstate(over="ignore", invalid="ignore"):
            x = self._framed(parts["x"].astype(_kept_as(parts["x"].dtype)))
        values = {"x": x, "rows": np.arange(first + 1, first + size + 1)}
        breaks: dict[int, tuple[str, str]] = {}
        values["y"] = _targets(parts["y"], labels, self._data, breaks)
        if x.dtype.kind == "f":
            for at in np.flatnonzero(~np.isfinite(x).reshape(size, -1).all(axis=1)):
                breaks.setdefault(int(at), ("non-finite", f"a value in {self._data.x!r} that is not finite"))
        if "group" in parts:
            groups = [group_of(label_of(_plain(cell))) for cell in parts["group"].tolist()]
            values["group"] = np.array(groups, np.uint64)
        if "time" in parts:
            values["time"] = _times(parts["time"], str(self._data.split.time), breaks)
        for broken in sorted(breaks):
            kind, what = breaks[broken]
            findings.set_aside(kind, f"row {first + broken + 1}: {what}")
        sound = np.ones(size, bool)
        sound[list(breaks)] = False
        for name, growing in kept.items():
            growing.append(values[name][sound])

    def _framed(self, x: np.ndarray) -> np.ndarray:
        """Images with their channels first."""
        if self._data.pixels == "hw":
            return x[:, None]
        return x.transpose(0, 3, 1, 2) if self._data.pixels == "hwc" else x


class SingleColumn:
    """An array of single values in rows, without the axis that has one entry."""

    def __init__(self, given: RawArray) -> None:
        self._given = given
        self.dtype = given.dtype
        self.shape = given.shape[:1]

    def rows(self, first: int, last: int) -> np.ndarray:
        """The rows from `first` to before `last`, each flattened to one line of features."""
        return self._given.rows(first, last)[:, 0]


def _kept_as(dtype: np.dtype) -> np.dtype:
    """Floats become float32; whole numbers up to 16 bits stay as they are, larger ones become float32 too."""
    small = dtype.kind in "iub" and dtype.itemsize <= 2
    return dtype.newbyteorder("<") if small else np.dtype(np.float32)


def _targets(given: np.ndarray, labels: dict[str, int], data: Arrays, breaks: dict[int, tuple[str, str]]) -> np.ndarray:
    if given.dtype.kind in "fiub":
        numbers: np.ndarray = given.astype(np.float64)
        for at in np.flatnonzero(~np.isfinite(numbers)):
            breaks.setdefault(int(at), ("unlabelled", f"no value in {data.y!r}"))
        return numbers
    codes, reading = np.zeros(len(given)), CellValues()
    for row, cell in enumerate(given.tolist()):
        said: Said = reading[_plain(cell)]
        if said is None:
            breaks.setdefault(row, ("unlabelled", f"no value in {data.y!r}"))
        else:
            codes[row] = labels.setdefault(label_of(said), len(labels))
    return codes


def _times(given: np.ndarray, name: str, breaks: dict[int, tuple[str, str]]) -> np.ndarray:
    moments = np.zeros(len(given))
    for at, cell in enumerate(given.tolist()):
        plain = _plain(cell)
        moment = time_of(plain)
        if moment is None:
            breaks.setdefault(at, ("corrupt", f"{plain!r} in {name!r} is neither a number nor a date in ISO 8601"))
        else:
            moments[at] = moment
    return moments


def _plain(cell: object) -> str | float:
    if isinstance(cell, bytes):
        return cell.decode("utf-8", "replace")
    return cell if isinstance(cell, str) else float(cell)  # type: ignore[arg-type] # numpy gives texts and numbers
