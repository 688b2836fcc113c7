"""Which rows train, validate and test: a pure function of the split section and the classes, by keyed draws."""

from __future__ import annotations

import numpy as np

from agents.data_manager.table import unusable
from contracts.request.data import Split
from runtime.engine.chance import mix, spread

STREAM = 0x53504C4954
"""Keeps the draws of splits apart from every draw in training."""

FEWEST = 10


def assigned(rows: int, split: Split, classes: np.ndarray | None) -> dict[str, np.ndarray]:
    """Row numbers per split, ascending. With `classes` every split has its share of each class, as far as they go."""
    sizes = sizes_of(rows, split)
    keys = spread(mix(split.seed, STREAM), np.arange(rows, dtype=np.uint64))
    order = np.lexsort((keys,) if classes is None else (keys, classes))
    chosen: dict[str, np.ndarray] = {}
    for name in ("val", "test"):
        taken = _spaced(len(order), sizes[name])
        chosen[name], order = np.sort(order[taken]), order[~taken]
    found = {"train": np.sort(order), "val": chosen["val"]}
    return found | ({"test": chosen["test"]} if split.test else {})


def sizes_of(rows: int, split: Split) -> dict[str, int]:
    """How many rows each split has: shares rounded, every share above 0 at least one row."""
    if rows < FEWEST:
        cure = f"Give at least {FEWEST} sound rows."
        raise unusable("data", f"{rows} rows are too few to train, validate and test with", cure)
    val = max(1, round(rows * split.val))
    test = max(1, round(rows * split.test)) if split.test else 0
    if val + test >= rows:
        raise unusable("data.split.train", f"of {rows} rows none is left to train with", "Make `train` larger.")
    return {"train": rows - val - test, "val": val, "test": test}


def _spaced(size: int, count: int) -> np.ndarray:
    """A mask with `count` places evenly spaced over `size`: in rows sorted by class, each class gives its share."""
    marks = np.arange(size + 1, dtype=np.int64) * count // size
    mask: np.ndarray = np.diff(marks) > 0
    return mask
