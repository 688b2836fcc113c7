"""What a target asks for: classes or numbers. Features are none of its business."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np

from agents.data_manager.findings import Findings
from agents.data_manager.table import unusable

FEW = 20
"""Whole numbers with at most so many different values are taken for classes, unless the request says otherwise."""

MOST_CLASSES = 10_000

Target = tuple[Literal["classification", "regression"], np.ndarray, tuple[str, ...]]


def of_words(codes: np.ndarray, labels: Mapping[str, int], name: str, task: str, place: str) -> Target:
    """Classes out of words: `codes` says for each row which of the `labels` it has."""
    found = sorted(labels, key=_by_value)
    if task == "regression":
        cure = "Choose `task: classification`, or a target of numbers."
        raise unusable("data.task", f"the target {name!r} holds words such as {found[0]!r}", cure)
    _refuse_odd_classes(found, len(codes), name, place)
    order = np.empty(len(found), np.int64)
    order[[labels[label] for label in found]] = np.arange(len(found))
    return "classification", order[codes], tuple(found)


def of_numbers(values: np.ndarray, name: str, task: str, place: str, findings: Findings) -> Target:
    """Numbers as they are; few whole numbers, or any when classes are asked for, as classes."""
    different = np.unique(values)
    few = len(different) <= FEW and np.array_equal(different, np.round(different))
    if task == "auto" and few:
        what = f"{name!r} has {len(different)} different whole numbers: classes (`task: regression` for numbers)"
        findings.add("task-inferred", what)
    if task == "classification" or (task == "auto" and few):
        labels = [str(int(one)) if float(one).is_integer() else repr(float(one)) for one in different]
        _refuse_odd_classes(labels, len(values), name, place)
        return "classification", np.searchsorted(different, values).astype(np.int64), tuple(labels)
    if len(different) == 1:
        raise unusable(place, f"the target {name!r} never varies", "Choose another target.")
    return "regression", values.astype(np.float32), ()


def _refuse_odd_classes(labels: list[str], rows: int, name: str, place: str) -> None:
    if len(labels) == 1:
        raise unusable(place, f"all rows are of the class {labels[0]!r}", "Choose another target.")
    if len(labels) > min(MOST_CLASSES, max(2, rows // 2)):
        cure = "Choose another target, or `task: regression` when it is a number."
        raise unusable(place, f"the target {name!r} has {len(labels)} different values in {rows} rows", cure)


def _by_value(label: str) -> tuple[int, float, str]:
    """Numbers by size, then words by letters."""
    try:
        return 0, float(label), label
    except ValueError:
        return 1, 0.0, label
