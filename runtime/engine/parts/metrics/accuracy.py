"""The share of rows answered with the right class."""

from __future__ import annotations

from torch import Tensor

from runtime.engine.kinds import Batch, metrics


@metrics.part("accuracy")
def accuracy(answers: Tensor, batch: Batch) -> float:
    """Right answers over all answers; exact."""
    return int((answers.argmax(1) == batch["y"]).sum()) / len(answers)
