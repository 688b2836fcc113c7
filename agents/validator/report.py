"""What answers are like beyond one number: per class, who is taken for whom, how far confidence can be trusted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

BINS = 15
MOST_CLASSES = 50
PAIRS = 20


def of_classes(answers: np.ndarray, truth: np.ndarray, labels: Sequence[str]) -> dict[str, Any]:
    """Precision, recall and F1 per class, the confusion matrix (or its largest entries), and calibration."""
    classes = answers.shape[1]
    names = [labels[at] if at < len(labels) else str(at) for at in range(classes)]
    confusion = np.bincount(truth * classes + answers.argmax(1), minlength=classes * classes).reshape(classes, classes)
    found: dict[str, Any] = {"calibration": calibration(answers, truth)}
    if classes <= MOST_CLASSES:
        return found | {"per_class": per_class(confusion, names), "confusion": confusion.tolist()}
    return found | {"confused": confused(confusion, names)}


def per_class(confusion: np.ndarray, names: Sequence[str]) -> list[dict[str, Any]]:
    """One line per class; a share of nothing is None."""
    hits, said, real = np.diag(confusion), confusion.sum(0), confusion.sum(1)
    return [
        {
            "label": name,
            "rows": int(real[at]),
            "precision": _share(hits[at], said[at]),
            "recall": _share(hits[at], real[at]),
            "f1": _share(2 * hits[at], said[at] + real[at]),
        }
        for at, name in enumerate(names)
    ]


def confused(confusion: np.ndarray, names: Sequence[str]) -> list[dict[str, Any]]:
    """The pairs that are mixed up most often."""
    wrong = confusion - np.diag(np.diag(confusion))
    order = np.argsort(-wrong, axis=None, kind="stable")[:PAIRS]
    pairs = [divmod(int(at), len(names)) for at in order if wrong.flat[at]]
    return [{"is": names[a], "said": names[b], "rows": int(wrong[a, b])} for a, b in pairs]


def calibration(answers: np.ndarray, truth: np.ndarray) -> dict[str, Any] | None:
    """The expected calibration error over bins of confidence; None when answers are not finite."""
    if not np.isfinite(answers).all():
        return None
    raised = np.exp(answers.astype(np.float64) - answers.max(1, keepdims=True))
    confidence = (raised / raised.sum(1, keepdims=True)).max(1)
    right = answers.argmax(1) == truth
    bins = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    rows = np.bincount(bins, minlength=BINS).tolist()
    sure, hits = np.bincount(bins, confidence, BINS).tolist(), np.bincount(bins, right, BINS).tolist()
    listed = [
        {
            "below": (at + 1) / BINS,
            "rows": rows[at],
            "confidence": sure[at] / rows[at],
            "accuracy": hits[at] / rows[at],
        }
        for at in range(BINS)
        if rows[at]
    ]
    return {"ece": sum(abs(a - b) for a, b in zip(sure, hits, strict=True)) / len(truth), "bins": listed}


def of_numbers(answers: np.ndarray, truth: np.ndarray) -> dict[str, Any]:
    """How errors are spread, in the target's own units; None when answers are not finite."""
    errors = answers.astype(np.float64).reshape(-1) - truth.astype(np.float64).reshape(-1)
    if not np.isfinite(errors).all():
        return {"errors": None}
    sizes = np.abs(errors)
    return {
        "errors": {
            "mean": float(errors.mean()),
            "median_absolute": float(np.median(sizes)),
            "p90_absolute": float(np.quantile(sizes, 0.9)),
            "largest": float(sizes.max()),
        }
    }


def _share(part: Any, whole: Any) -> float | None:
    return float(part / whole) if whole else None
