"""What rows say about their own quality: repeats, contradictions, leaks, rare classes, columns that never change."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from agents.data_manager.equality import firsts, keys_of, twins
from agents.data_manager.findings import Findings, Severity
from agents.data_manager.scratch import portions
from agents.data_manager.table import Columns, DataTable, unusable

RARE = 5
IMBALANCE = 20

Places = Mapping[str, np.ndarray]
"""For each split the places of its rows in the table's columns."""


class TableView:
    """A table looked at as a whole; the keys of its features are computed once."""

    def __init__(self, table: DataTable) -> None:
        self._table = table
        self._x = keys_of([table.columns["x"]]) if "x" in table.columns else None

    def without_repeats(self, findings: Findings, *, keep: bool) -> DataTable:
        """The table without exact repeats; with `keep` they are only counted."""
        table = self._table
        if self._x is None:
            return table
        names = sorted(set(table.columns) - {"x"})
        others = [table.columns[name] for name in names]
        others += [one for one in (table.groups, table.times) if one is not None]
        keys = keys_of(others) * np.uint64(3) ^ self._x if others else self._x
        first = firsts([table.columns["x"], *others], keys)
        again = np.flatnonzero(first != np.arange(len(first)))
        for place in again:
            where = f"{table.where(int(place))} repeats {table.where(int(first[place]))}"
            if keep:
                findings.add("duplicate-kept", where)
            else:
                findings.set_aside("duplicate", where)
        if keep or not len(again):
            return table
        return dataclasses.replace(table, chosen=np.flatnonzero(first == np.arange(len(first))))

    def look(self, table: DataTable, findings: Findings) -> None:
        """Notice contradictions, classes that are hardly there, and features that never change."""
        if table.task == "classification":
            if self._x is not None:
                _contradictions(table, self._x, findings)
            _classes(table, findings)
        if self._x is not None:
            _constants(table, findings)

    def without_leaks(self, places: Places, findings: Findings, *, keep: bool) -> dict[str, np.ndarray]:
        """The splits without rows of val and test whose features are also in train: what they measure is memory.

        With `keep` they stay, and are only counted.
        """
        found = dict(places)
        for name in ("val", "test"):
            if self._x is None or name not in places:
                continue
            twin = twins(self._table.columns["x"], self._x, places[name], places["train"])
            leaks = np.flatnonzero(twin >= 0)
            severity: Severity = "warning" if len(leaks) > 0.01 * len(twin) else "note"
            for leak in leaks:
                ours, theirs = int(places[name][leak]), int(twin[leak])
                where = f"{name} {self._table.where(ours)} is train {self._table.where(theirs)}"
                if keep:
                    findings.add(f"leak-{name}", where, severity=severity)
                else:
                    findings.set_aside(f"leak-{name}", where)
            if not keep:
                found[name] = places[name][twin < 0]
        return found


def look_at_given(splits: Mapping[str, Columns], findings: Findings) -> None:
    """Notice leaks between splits that the source has made itself."""
    for name in ("val", "test"):
        if name in splits and "x" in splits[name] and "x" in splits["train"]:
            train, other = len(splits["train"]["x"]), len(splits[name]["x"])
            both = np.concatenate([splits["train"]["x"], splits[name]["x"]])
            twin = twins(both, keys_of([both]), np.arange(train, train + other), np.arange(train))
            leaks = np.flatnonzero(twin >= 0)
            severity: Severity = "warning" if len(leaks) > 0.01 * other else "note"
            for leak in leaks:
                where = f"{name} row {leak + 1} is train row {twin[leak] + 1}"
                findings.add(f"leak-{name}", where, severity=severity)


def look_at_classes(trained: np.ndarray, labels: tuple[str, ...], findings: Findings) -> None:
    """Notice classes that are never trained; refuse a target with fewer than two classes."""
    counts = np.bincount(trained, minlength=len(labels))
    if np.count_nonzero(counts) < 2:
        cure = "Choose another target, or more rows."
        raise unusable("data", "fewer than two classes are left to train with", cure)
    for label, count in zip(labels, counts, strict=False):
        if not count:
            findings.add("untrained-class", repr(label), severity="warning")


def _contradictions(table: DataTable, keys: np.ndarray, findings: Findings) -> None:
    first = firsts([table.columns["x"]], keys)
    y = table.columns["y"]
    for place in np.flatnonzero(y != y[first]):
        where = f"{table.where(int(place))} and {table.where(int(first[place]))}"
        findings.add("contradiction", where, severity="warning")


def _classes(table: DataTable, findings: Findings) -> None:
    counts = np.bincount(table.columns["y"][table.places], minlength=len(table.labels))
    for label, count in zip(table.labels, counts, strict=False):
        if count < RARE:
            findings.add("rare-class", f"{label!r} has {count} rows")
    present = counts[counts > 0]
    if len(present) and present.max() > IMBALANCE * present.min():
        findings.add("imbalance", f"the largest class has {present.max()} rows, the smallest {present.min()}")


def _constants(table: DataTable, findings: Findings) -> None:
    x = table.columns["x"]
    same = np.ones(int(np.prod(x.shape[1:], dtype=np.int64)), bool)
    for part in portions(x):
        if not same.any():
            return
        same &= (x[part] == x[0]).reshape(part.stop - part.start, -1).all(axis=0)
    for index in np.flatnonzero(same):
        name = table.features[index] if len(table.features) == len(same) else f"feature {index + 1}"
        findings.add("constant-feature", repr(name))
