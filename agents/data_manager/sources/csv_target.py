"""What the target of a table asks for: classes or numbers. Features are none of its business."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from agents.data_manager.table import Findings, unusable
from contracts.request.data import Csv

FEW = 20
"""Whole numbers with at most so many different values are taken for classes, unless the request says otherwise."""

MOST_CLASSES = 10_000

Target = tuple[Literal["classification", "regression"], np.ndarray, tuple[str, ...]]


def as_target(values: Sequence[str] | Sequence[float], data: Csv, findings: Findings) -> Target:
    """Task, encoded target and labels; words are always classes."""
    words = isinstance(values[0], str)
    if words and data.task == "regression":
        cure = "Choose `task: classification`, or a target of numbers."
        raise unusable("data.task", f"the target {data.target!r} holds words such as {values[0]!r}", cure)
    if words:
        return _classes([str(one) for one in values], data)
    numbers = np.asarray(values, np.float64)
    different = np.unique(numbers)
    if data.task == "auto" and len(different) <= FEW and np.array_equal(different, np.round(different)):
        what = f"{data.target!r} has {len(different)} different whole numbers: classes (`task: regression` for numbers)"
        findings.add("task-inferred", what)
        return _classes([str(int(one)) for one in numbers], data)
    if len(different) == 1:
        raise unusable("data.target", f"the target {data.target!r} never varies", "Choose another target.")
    return "regression", numbers.astype(np.float32), ()


def _classes(words: Sequence[str], data: Csv) -> Target:
    labels = sorted(set(words), key=_by_value)
    if len(labels) == 1:
        raise unusable("data.target", f"all rows are of the class {labels[0]!r}", "Choose another target.")
    if len(labels) > min(MOST_CLASSES, max(2, len(words) // 2)):
        cure = "Choose another target, or `task: regression` when it is a number."
        message = f"the target {data.target!r} has {len(labels)} different values in {len(words)} rows"
        raise unusable("data.target", message, cure)
    codes = {label: code for code, label in enumerate(labels)}
    return "classification", np.asarray([codes[word] for word in words], np.int64), tuple(labels)


def _by_value(label: str) -> tuple[int, float, str]:
    """Numbers by size, then words by letters."""
    try:
        return 0, float(label), label
    except ValueError:
        return 1, 0.0, label
