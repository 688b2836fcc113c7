"""The job that judges one checkpoint on one split, with the engine's own evaluation.

It may run code of the user's, so it is not told what was recorded: the validator compares. Besides the metrics it tells
what answers are like: per class, who is taken for whom, how far confidence can be trusted.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from agents.validator.tasks import JudgedState, SplitFigures
from contracts.request import Request
from contracts.validator import (
    Calibration,
    ClassScore,
    ConfidenceBin,
    ConfusedPair,
    ErrorSpread,
    JudgementDetails,
)
from runtime.engine import seal
from runtime.engine.dataset import Dataset
from runtime.engine.evaluate import Judge
from runtime.engine.fingerprint import present
from runtime.engine.learner import Learner
from runtime.engine.plan import Plan
from runtime.home.workloads import enlist
from runtime.model.trained import read_checkpoint, rebuild

BINS = 15
MOST_CLASSES = 50
PAIRS = 20


def judge(judged: JudgedState) -> SplitFigures:
    """The metrics of a split, and details that say more, for targets of a known kind whose answers are at hand."""
    plan = {"request": judged.request, "resolved": judged.resolved, "changes": judged.changes}
    # As many rows at once as when the training judged it.
    resolved = Plan.from_json(plan).resolved_at(judged.step - 1)
    if not present(resolved.device):
        # Judged on the CPU, which is worth knowing and not comparable.
        resolved = replace(resolved, device="cpu")
    seal.apply(threads=resolved.threads, profile=resolved.profile)
    enlist(judged.workloads)
    blobs, request, split = judged.blobs, Request.model_validate(judged.request), judged.split
    dataset = Dataset.open(blobs / "datasets" / judged.dataset, verify=False)
    learner, content = Learner(request, dataset.facts), read_checkpoint(blobs, judged.blob, judged.state_root)
    model = rebuild(learner, request, dataset.facts, content).model.to(resolved.device)
    evaluation = Judge(learner, resolved, dataset, split)
    values = {name: value.hex() for name, value in evaluation.values(model).items()}
    details = JudgementDetails()
    # What is learned is not always what the rows are for: digits can be rebuilt instead of classified.
    if learner.metrics and learner.task in ("classification", "regression"):
        answers, truth = evaluation.answers(model).numpy(), dataset.columns(split)["y"]
        if learner.task == "classification" and answers.ndim == 2:
            details = of_classes(answers, truth, dataset.facts.labels)
        elif learner.task == "regression" and answers.size == truth.size:
            details = of_numbers(answers, truth)
    return SplitFigures(dataset.facts.rows[split], values, details)


def of_classes(answers: np.ndarray, truth: np.ndarray, labels: Sequence[str]) -> JudgementDetails:
    """Precision, recall and F1 per class, the confusion matrix (or its largest entries), and calibration."""
    classes = answers.shape[1]
    names = [labels[at] if at < len(labels) else str(at) for at in range(classes)]
    confusion = np.bincount(truth * classes + answers.argmax(1), minlength=classes * classes).reshape(classes, classes)
    trusted = calibration(answers, truth)
    if classes <= MOST_CLASSES:
        scores, counts = per_class(confusion, names), confusion.tolist()
        return JudgementDetails(calibration=trusted, per_class=scores, confusion=counts)
    return JudgementDetails(calibration=trusted, confused=confused(confusion, names))


def per_class(confusion: np.ndarray, names: Sequence[str]) -> list[ClassScore]:
    """One line per class; a share of nothing is None."""
    hits, said, real = np.diag(confusion), confusion.sum(0), confusion.sum(1)
    return [
        ClassScore(
            label=name,
            rows=int(real[at]),
            precision=_share(hits[at], said[at]),
            recall=_share(hits[at], real[at]),
            f1=_share(2 * hits[at], said[at] + real[at]),
        )
        for at, name in enumerate(names)
    ]


def confused(confusion: np.ndarray, names: Sequence[str]) -> list[ConfusedPair]:
    """The pairs that are mixed up most often."""
    wrong = confusion - np.diag(np.diag(confusion))
    order = np.argsort(-wrong, axis=None, kind="stable")[:PAIRS]
    pairs = [divmod(int(at), len(names)) for at in order if wrong.flat[at]]
    return [ConfusedPair(real=names[a], said=names[b], rows=int(wrong[a, b])) for a, b in pairs]


def calibration(answers: np.ndarray, truth: np.ndarray) -> Calibration | None:
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
        ConfidenceBin(
            below=(at + 1) / BINS, rows=rows[at], confidence=sure[at] / rows[at], accuracy=hits[at] / rows[at]
        )
        for at in range(BINS)
        if rows[at]
    ]
    return Calibration(ece=sum(abs(a - b) for a, b in zip(sure, hits, strict=True)) / len(truth), bins=listed)


def of_numbers(answers: np.ndarray, truth: np.ndarray) -> JudgementDetails:
    """How errors are spread, in the target's own units; None when answers are not finite."""
    errors = answers.astype(np.float64).reshape(-1) - truth.astype(np.float64).reshape(-1)
    if not np.isfinite(errors).all():
        return JudgementDetails(errors=None)
    sizes = np.abs(errors)
    spread = ErrorSpread(
        mean=float(errors.mean()),
        median_absolute=float(np.median(sizes)),
        p90_absolute=float(np.quantile(sizes, 0.9)),
        largest=float(sizes.max()),
    )
    return JudgementDetails(errors=spread)


def _share(part: Any, whole: Any) -> float | None:
    return float(part / whole) if whole else None
