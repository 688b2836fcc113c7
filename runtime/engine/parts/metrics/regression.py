"""Errors of answered numbers, in the target's own units."""

from __future__ import annotations

import math

from torch import Tensor

from runtime.engine.exact import total
from runtime.engine.kinds import Batch, metrics


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
