"""Which rows train, validate and test: a pure function of the split section and the rows' classes, groups or times."""

import numpy as np

from agents.data_manager.source import Places, unusable
from contracts.request.data import Split
from runtime.engine.random_keys import mix, spread

STREAM = 0x53504C4954
"""Keeps the draws of splits apart from every draw in training."""

FEWEST = 10


def assign(
    rows: int,
    split: Split,
    classes: np.ndarray | None = None,
    *,
    groups: np.ndarray | None = None,
    times: np.ndarray | None = None,
) -> Places:
    """Row numbers per split, ascending. With `classes` every split has its share of each class, as far as they go.

    With `groups` no group is in two splits, and the shares are those of rows as far as whole groups allow; with
    `times` train comes before val, and val before test.
    """
    sizes = sizes_of(rows, split)
    if times is not None:
        order = np.argsort(times, kind="stable")
        parts = np.split(order, np.cumsum([sizes["train"], sizes["val"]]))
        return {name: np.sort(part) for name, part in zip(sizes, parts, strict=True) if len(part)}
    if groups is not None:
        return _in_groups(groups, split)
    keys = spread(mix(split.seed, STREAM), np.arange(rows, dtype=np.uint64))
    order = np.lexsort((keys,) if classes is None else (keys, classes))
    test, order = _taken(order, sizes["test"])
    if split.folds is None:
        val, train = _taken(order, sizes["val"])
    else:
        fold = np.arange(len(order)) % split.folds == split.fold
        val, train = order[fold], order[~fold]
    return _named(train, val, test, split)


def sizes_of(rows: int, split: Split) -> dict[str, int]:
    """How many rows each split has: shares rounded, every share above 0 at least one row."""
    if rows < FEWEST:
        cure = f"Give at least {FEWEST} sound rows."
        raise unusable("data", f"{rows} rows are too few to train, validate and test with", cure)
    val = max(1, round(rows * split.val))
    test = max(1, round(rows * split.test)) if split.test else 0
    if val + test >= rows:
        raise unusable("data.split.train", f"of {rows} rows none is left to train with", "Make `train` larger.")
    if split.folds is not None and split.folds > rows - test:
        cure = "Choose fewer folds."
        raise unusable("data.split.folds", f"{rows - test} rows do not fill {split.folds} folds", cure)
    return {"train": rows - val - test, "val": val, "test": test}


def _taken(order: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """`count` rows evenly spaced over `order` (sorted by class, each class gives its share), and the rest."""
    marks = np.arange(len(order) + 1, dtype=np.int64) * count // len(order)
    mask = np.diff(marks) > 0
    return order[mask], order[~mask]


def _in_groups(groups: np.ndarray, split: Split) -> Places:
    """Groups in a drawn order, each where its middle row falls; every split has at least one."""
    names, of, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    wanted = 2 + bool(split.test) if split.folds is None else split.folds + bool(split.test)
    if len(names) < wanted:
        cure = "Choose another column, or fewer splits."
        raise unusable("data.split.group", f"{len(names)} groups do not fill {wanted} splits", cure)
    order = np.argsort(spread(mix(split.seed, STREAM), names.astype(np.uint64)), kind="stable")
    ends = np.cumsum(sizes[order])
    middle = (ends - sizes[order] / 2) / ends[-1]
    last = max(1, int((middle < split.test).sum())) if split.test else 0
    # Folds keep what they were given before this bound: their other folds were prepared by it.
    last = min(last, len(order) - 2) if split.folds is None and split.test else last
    test, order, middle = order[:last], order[last:], middle[last:]
    if split.folds is None:
        count = min(max(1, int((middle < split.test + split.val).sum())), len(order) - 1)
        chosen = np.arange(len(order)) < count
    else:
        chosen = np.arange(len(order)) % split.folds == split.fold
    part = np.zeros(len(names), np.int8)
    part[order[chosen]], part[test] = 1, 2
    where = part[of]
    train, val, held = (np.flatnonzero(where == number) for number in range(3))
    return _named(train, val, held, split)


def _named(train: np.ndarray, val: np.ndarray, test: np.ndarray, split: Split) -> Places:
    places = {"train": np.sort(train), "val": np.sort(val)}
    return places | ({"test": np.sort(test)} if split.test else {})
