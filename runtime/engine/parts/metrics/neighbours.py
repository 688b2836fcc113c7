"""Whether rows of a class are near each other."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from runtime.engine.kinds import Batch, metrics

CHUNK = 1024


@metrics.part("neighbour_accuracy")
def neighbour_accuracy(answers: Tensor, batch: Batch) -> float:
    """The share of rows whose nearest other row, by direction, is of their class; exact but for the distances."""
    directions, classes = functional.normalize(answers.float(), dim=1), batch["y"]
    right = 0
    for first in range(0, len(directions), CHUNK):
        alike = directions[first : first + CHUNK] @ directions.T
        rows = torch.arange(len(alike))
        alike[rows, first + rows] = -torch.inf
        right += int((classes[alike.argmax(1)] == classes[first : first + CHUNK]).sum())
    return right / len(answers)
