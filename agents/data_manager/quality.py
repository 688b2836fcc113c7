"""What rows say about their own quality: repeats, contradictions, leaks, rare classes, columns that never change."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from agents.data_manager.table import Columns, Findings, Severity, Table, unusable
from runtime.engine.chance import finalised, mix

TOLERANCE = 0.05
"""The share of rows that may be broken, or dropped as repeats, before somebody has to look."""

RARE = 5
IMBALANCE = 20
_SEED = np.uint64(mix(0x524F5753))


def without_repeats(table: Table, findings: Findings) -> Table:
    """The table without exact repeats while they are rare; when they are common they are the data, and stay."""
    names = sorted(table.columns)
    first = firsts([table.columns[name] for name in names])
    again = np.flatnonzero(first != np.arange(len(first)))
    if not len(again):
        return table
    rare = len(again) <= TOLERANCE * table.size
    for row in again:
        where = f"row {table.number(int(row))} repeats row {table.number(int(first[row]))}"
        findings.add("duplicate" if rare else "duplicate-kept", where, severity="warning")
    return table.only(np.flatnonzero(first == np.arange(len(first)))) if rare else table


def look_at_rows(table: Table, findings: Findings) -> None:
    """Notice contradictions, classes that are hardly there, and features that never change."""
    if "x" in table.columns and table.task == "classification":
        _contradictions(table, findings)
    if table.task == "classification":
        _classes(table, findings)
    if "x" in table.columns:
        _constants(table, findings)


def look_at_splits(splits: Mapping[str, Columns], rows: Mapping[str, np.ndarray], findings: Findings) -> None:
    """Notice rows of val and test whose features are also in train: what they measure is memory."""
    if "x" not in splits["train"]:
        return
    for name in ("val", "test"):
        if name not in splits:
            continue
        size = len(splits["train"]["x"])
        first = firsts([np.concatenate([splits["train"]["x"], splits[name]["x"]])])[size:]
        leaks = np.flatnonzero(first < size)
        severity: Severity = "warning" if len(leaks) > 0.01 * len(first) else "note"
        for leak in leaks:
            where = f"{name} row {rows[name][leak]} is train row {rows['train'][first[leak]]}"
            findings.add(f"leak-{name}", where, severity=severity)


def look_at_classes(splits: Mapping[str, Columns], labels: tuple[str, ...], findings: Findings) -> None:
    """Notice classes that are never trained; refuse a target with fewer than two classes."""
    trained = np.bincount(splits["train"]["y"], minlength=len(labels))
    if np.count_nonzero(trained) < 2:
        cure = "Choose another target, or more rows."
        raise unusable("data", "fewer than two classes are left to train with", cure)
    for label, count in zip(labels, trained, strict=False):
        if not count:
            findings.add("untrained-class", repr(label), severity="warning")


def firsts(columns: list[np.ndarray]) -> np.ndarray:
    """For every row the first row that is equal to it, byte for byte; itself when there is none."""
    size = len(columns[0])
    keys = np.full(size, _SEED, np.uint64)
    for column in columns:
        for part in np.ascontiguousarray(column).reshape(size, -1).T:
            keys = finalised(keys * np.uint64(3) ^ _words(part))
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    found: np.ndarray = first[inverse].astype(np.int64)
    # Keys of 64 bits could collide; only rows that really are equal count.
    for column in columns:
        differs = (column != column[found]).reshape(size, -1).any(axis=1)
        found[differs] = np.flatnonzero(differs)
    return found


def _words(part: np.ndarray) -> np.ndarray:
    unsigned = np.ascontiguousarray(part).view(f"u{part.dtype.itemsize}")
    return unsigned.astype(np.uint64)


def _contradictions(table: Table, findings: Findings) -> None:
    first = firsts([table.columns["x"]])
    for row in np.flatnonzero(table.columns["y"] != table.columns["y"][first]):
        where = f"row {table.number(int(row))} and row {table.number(int(first[row]))}"
        findings.add("contradiction", where, severity="warning")


def _classes(table: Table, findings: Findings) -> None:
    counts = np.bincount(table.columns["y"], minlength=len(table.labels))
    for label, count in zip(table.labels, counts, strict=False):
        if count < RARE:
            findings.add("rare-class", f"{label!r} has {count} rows")
    present = counts[counts > 0]
    if len(present) and present.max() > IMBALANCE * present.min():
        findings.add("imbalance", f"the largest class has {present.max()} rows, the smallest {present.min()}")


def _constants(table: Table, findings: Findings) -> None:
    x = table.columns["x"].reshape(table.size, -1)
    for index in np.flatnonzero((x == x[0]).all(axis=0)):
        name = table.features[index] if len(table.features) == x.shape[1] else f"feature {index + 1}"
        findings.add("constant-feature", repr(name))
