"""Metrics over all answers of a split; where sums are taken, they are exact."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import functional

from runtime.engine.kinds import Batch, metrics


def total(terms: Iterable[float]) -> float:
    """The correctly rounded sum; NaN when infinities or NaN are among the terms or it is too large."""
    try:
        return math.fsum(terms)
    except (ValueError, OverflowError):
        return math.nan


@metrics.part("accuracy")
def accuracy(answers: Tensor, batch: Batch) -> float:
    """The share of rows answered with the right class. Right answers over all answers; exact."""
    return int((answers.argmax(1) == batch["y"]).sum()) / len(answers)


@metrics.part("f1_macro")
def f1_macro(answers: Tensor, batch: Batch) -> float:
    """The mean over classes of the harmonic mean of precision and recall.

    Classes that neither occur nor are answered do not count; from whole counts, exact.
    """
    classes = answers.shape[1]
    truth, said = batch["y"], answers.argmax(1)
    hits = torch.bincount(truth[truth == said], minlength=classes).tolist()
    sizes = (torch.bincount(truth, minlength=classes) + torch.bincount(said, minlength=classes)).tolist()
    scores = [2 * hit / size for hit, size in zip(hits, sizes, strict=True) if size]
    return math.fsum(scores) / len(scores)


@metrics.part("rmse")
def rmse(answers: Tensor, batch: Batch) -> float:
    """The root of the mean squared error."""
    errors = _errors(answers, batch)
    return math.sqrt(total(error * error for error in errors) / len(errors))


@metrics.part("mae")
def mae(answers: Tensor, batch: Batch) -> float:
    """The mean absolute error."""
    errors = _errors(answers, batch)
    return total(map(abs, errors)) / len(errors)


@metrics.part("r2")
def r2(answers: Tensor, batch: Batch) -> float:
    """The share of the target's variance that is explained; 0 when the target does not vary."""
    truth = batch["y"].double().reshape(-1).tolist()
    mean = total(truth) / len(truth)
    variance = total((value - mean) ** 2 for value in truth)
    return 1 - total(error * error for error in _errors(answers, batch)) / variance if variance else 0.0


def _errors(answers: Tensor, batch: Batch) -> list[float]:
    return [float(e) for e in (answers.double().reshape(-1) - batch["y"].double().reshape(-1)).tolist()]


LARGEST = 700.0


@metrics.part("perplexity")
def perplexity(kept: Tensor, batch: Batch) -> float:
    """Among how many equally likely tokens the model wavered, on average."""
    surprise, _, tokens = kept.double().unbind(1)
    mean = total(surprise.tolist()) / total(tokens.tolist())
    return math.exp(mean) if mean < LARGEST else mean * math.inf


@metrics.part("next_token_accuracy")
def next_token_accuracy(kept: Tensor, batch: Batch) -> float:
    """The share of tokens that were guessed; exact."""
    _, right, tokens = kept.double().unbind(1)
    return total(right.tolist()) / total(tokens.tolist())


@metrics.part("reconstruction_error")
def reconstruction_error(kept: Tensor, batch: Batch) -> float:
    """How well rows were rebuilt, from what the task kept of each row.

    The root of the mean squared error, in deviations: always answering the mean costs 1.
    """
    return math.sqrt(total(kept.double().reshape(-1).tolist()) / len(kept))


CHUNK = 1024


@metrics.part("neighbour_accuracy")
def neighbour_accuracy(answers: Tensor, batch: Batch) -> float:
    """Whether rows of a class are near each other.

    The share of rows whose nearest other row, by direction, is of their class; exact but for the distances.
    """
    directions, classes = functional.normalize(answers.float(), dim=1), batch["y"]
    right = 0
    for first in range(0, len(directions), CHUNK):
        alike = directions[first : first + CHUNK] @ directions.T
        rows = torch.arange(len(alike))
        alike[rows, first + rows] = -torch.inf
        right += int((classes[alike.argmax(1)] == classes[first : first + CHUNK]).sum())
    return right / len(answers)
