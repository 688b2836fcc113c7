"""What rows say about their own quality: repeats, contradictions, leaks, rare classes, columns that never change.

Equal rows are found in bounded memory: by a key of 64 bits per row, and then by a look at the rows themselves.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np
from blake3 import blake3

from agents.data_manager.findings import Findings, Severity
from agents.data_manager.scratch import portions, row_bytes
from agents.data_manager.source import Columns, DataTable, Places, unusable
from runtime.engine.random_keys import finalised, mix

_SEED = np.uint64(mix(0x524F5753))
_WIDE = 256
"""Rows with more bytes than this are hashed one by one, narrower ones number by number and all at once."""


def keys_of(columns: list[np.ndarray]) -> np.ndarray:
    """One uint64 per row; equal rows have equal keys, and others hardly ever do."""
    keys = np.full(len(columns[0]), _SEED, np.uint64)
    for column in columns:
        mix_in = _hash_rows if row_bytes(column) > _WIDE else _mix_rows
        for part in portions(column):
            keys[part] = mix_in(keys[part], np.ascontiguousarray(column[part]))
    return keys


def firsts(columns: list[np.ndarray], keys: np.ndarray | None = None) -> np.ndarray:
    """For every row the first row that is equal to it; itself when there is none."""
    keys = keys_of(columns) if keys is None else keys
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    earliest: np.ndarray = first[inverse].astype(np.int64)
    again = np.flatnonzero(earliest != np.arange(len(earliest)))
    # Keys could collide; only rows that really are equal count.
    for column in columns:
        alone = again[~_equal(column, again, column, earliest[again])]
        earliest[alone] = alone
    return earliest


def twins(column: np.ndarray, keys: np.ndarray, ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """For each of our places one of theirs with an equal row, or -1."""
    order = np.argsort(keys[theirs], kind="stable")
    sorted_keys = keys[theirs][order]
    at = np.minimum(np.searchsorted(sorted_keys, keys[ours]), max(0, len(theirs) - 1))
    twin_of = np.full(len(ours), -1, np.int64)
    if not len(theirs):
        return twin_of
    same = np.flatnonzero(sorted_keys[at] == keys[ours])
    candidates = theirs[order[at[same]]]
    sound = _equal(column, ours[same], column, candidates)
    twin_of[same[sound]] = candidates[sound]
    return twin_of


def _equal(column: np.ndarray, ours: np.ndarray, other: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    same = np.ones(len(ours), bool)
    step = max(1, (1 << 22) // max(1, row_bytes(column)))
    for first in range(0, len(ours), step):
        part = slice(first, first + step)
        pairs = column[ours[part]] == other[theirs[part]]
        same[part] = pairs.reshape(len(pairs), -1).all(axis=1)
    return same


def _mix_rows(keys: np.ndarray, rows: np.ndarray) -> np.ndarray:
    words = rows.reshape(len(rows), -1).view(f"u{rows.dtype.itemsize}")
    for part in words.T:
        keys = finalised(keys * np.uint64(3) ^ part.astype(np.uint64))
    return keys


def _hash_rows(keys: np.ndarray, rows: np.ndarray) -> np.ndarray:
    flat = rows.reshape(len(rows), -1).view(np.uint8)
    digests = b"".join(blake3(row.data).digest(8) for row in flat)
    return finalised(keys * np.uint64(3) ^ np.frombuffer(digests, "<u8"))


RARE = 5
IMBALANCE = 20


class RowQuality:
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
        others += [column for column in (table.groups, table.times) if column is not None]
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
                y, first = table.columns["y"], firsts([table.columns["x"]], self._x)
                for place in np.flatnonzero(y != y[first]):
                    where = f"{table.where(int(place))} and {table.where(int(first[place]))}"
                    findings.add("contradiction", where, severity="warning")
            _classes(table, findings)
        if self._x is not None:
            _constants(table, findings)
            _telling(table, findings)
            _doubtful(table, findings)

    def without_leaks(self, places: Places, findings: Findings, *, keep: bool) -> Places:
        """The splits without rows of val and test whose features are also in train: what they measure is memory.

        With `keep` they stay, and are only counted.
        """
        sound = dict(places)
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
                sound[name] = places[name][twin < 0]
        return sound


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


SAMPLE, NUMBERS, AT_ONCE = 20_000, 1 << 18, 1 << 15
"""The most rows and numbers that are looked at for features that give the answer away, and how many at once."""
TELLING = 0.995
"""The share of a feature's variance that the target explains, from which on the feature is the target."""
FOLLOWING = 0.02
"""Of a number's variance, what is left between rows that are neighbours by a feature from which it follows."""


def _telling(table: DataTable, findings: Findings) -> None:
    """Notice features that give the answer away, in a sample of rows."""
    if table.task not in ("classification", "regression"):
        return
    x, places = table.columns["x"].reshape(table.length, -1), table.places
    most = min(SAMPLE, NUMBERS // max(1, x.shape[1]))
    sample = places[:: max(1, len(places) // max(1, most))]
    if len(sample) < max(50, 10 * len(table.labels)):
        return
    target = table.columns["y"][sample].reshape(-1)
    order = np.argsort(target, kind="stable")
    sample, target = sample[order], target[order]
    _, begins, counts = np.unique(target, return_index=True, return_counts=True)
    distances = target - target.mean(dtype=np.float64)
    left, mixed = 2 * FOLLOWING * (distances @ distances), np.random.default_rng(1).permutation(len(sample))
    wide = max(1, AT_ONCE // len(sample))
    for first in range(0, x.shape[1], wide):
        rows = x[sample, first : first + wide].astype(np.float64)
        rows -= rows.mean(axis=0)
        size = np.maximum(np.square(rows).sum(axis=0), 1e-300)
        if table.task == "classification":
            tells = (np.square(np.add.reduceat(rows, begins)) / counts[:, None]).sum(axis=0) > TELLING * size
        else:
            tells = np.square(distances @ rows) / max(distances @ distances, 1e-300) > TELLING * size
            if x.shape[1] > 1:
                # Rows with one value come in an order of chance, and not in that of their targets.
                by_feature = distances[mixed][np.argsort(x[sample[mixed], first : first + wide], axis=0, kind="stable")]
                tells |= np.square(np.diff(by_feature, axis=0)).sum(axis=0) < left
        for index in np.flatnonzero(tells) + first:
            name = table.features[index] if len(table.features) == x.shape[1] else f"feature {index + 1}"
            findings.add("telling-feature", repr(name), severity="warning")


NEIGHBOURS, LIKE_ROWS = 10, 1024
"""How many of the nearest rows answers are held against, and of how many rows at most."""


def _doubtful(table: DataTable, findings: Findings) -> None:
    """Notice answers that differ among like rows, where features tell answers apart.

    Where kinds of rows meet, neighbours differ, and elsewhere they agree; a vote among them is then more often right
    than one of them. Where labels are wrong, they differ as often everywhere. Numbers that are wrong are far from those
    of like rows, while most are near.
    """
    if table.task not in ("classification", "regression"):
        return
    x, places = table.columns["x"].reshape(table.length, -1), table.places
    most = min(LIKE_ROWS, NUMBERS // 2 // max(1, x.shape[1]))
    sample = places[:: max(1, -(-len(places) // max(1, most)))]
    if len(sample) < 10 * NEIGHBOURS:
        return
    y, near = table.columns["y"][sample].reshape(-1), _nearest(x[sample].astype(np.float64))
    wrong = _wrong_labels(y, near) if table.task == "classification" else _wrong_numbers(y.astype(np.float64), near)
    if wrong:
        about = f"about {wrong:.0%} of {len(sample)} rows answer otherwise than rows like them"
        findings.add("doubtful-answers", about, count=max(1, round(wrong * len(places))), severity="warning")


def _nearest(x: np.ndarray) -> np.ndarray:
    """For each row the places of the rows that are nearest to it, all features being as wide."""
    x -= x.mean(axis=0)
    deviation = np.sqrt(np.einsum("ij,ij->j", x, x) / len(x))
    x /= np.where(deviation > 0, deviation, 1.0)
    sizes = np.einsum("ij,ij->i", x, x)
    near = np.empty((len(x), NEIGHBOURS), np.int64)
    for first in range(0, len(x), many := max(1, AT_ONCE // len(x))):
        part = np.arange(first, min(first + many, len(x)))
        apart = np.einsum("ik,jk->ij", x[part], x)  # Matrix products ask for memory of their own.
        apart *= -2
        apart += sizes
        apart[np.arange(len(part)), part] = np.inf
        near[part] = np.argpartition(apart, NEIGHBOURS, axis=1)[:, :NEIGHBOURS]
    return near


def _wrong_labels(y: np.ndarray, near: np.ndarray) -> float:
    """The share of labels that are wrong everywhere alike; 0 where they are not, or features tell nothing of them."""
    labels, y = np.unique(y, return_inverse=True)
    votes = np.stack([(y[near] == label).sum(axis=1) for label in range(len(labels))], axis=1)
    largest, share = votes.max(axis=1) / NEIGHBOURS, np.bincount(y).max() / len(y)
    agree, right = float(largest.mean()), float((votes.argmax(axis=1) == y).mean())
    spread = float(largest.var()) / max(agree * (1 - agree) / NEIGHBOURS, 1e-12)
    alike = agree < 0.85 and spread < 1.4 and right < agree + 0.02
    return 1 - agree if alike and right > share + 0.15 * (1 - share) else 0.0


def _wrong_numbers(y: np.ndarray, near: np.ndarray) -> float:
    """The share of numbers that are far from those of like rows, on both sides, though most are near."""
    beyond = y - np.median(y[near], axis=1)
    beyond -= np.median(beyond)
    deviation, variance = 1.4826 * float(np.median(np.abs(beyond))), float(y.var())
    if not 0 < deviation**2 < 0.75 * variance or float(beyond.var()) - deviation**2 < 0.15 * variance:
        return 0.0
    above, below = float((beyond > 2.5 * deviation).mean()), float((beyond < -2.5 * deviation).mean())
    return above + below if min(above, below) > 0.25 * max(above, below) else 0.0
