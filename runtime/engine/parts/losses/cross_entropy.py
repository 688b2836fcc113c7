"""Cross-entropy for classes."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional

from contracts.request.loss import CrossEntropy
from runtime.engine.facts import Facts
from runtime.engine.kinds import Batch, losses


@losses.part(CrossEntropy)
def build(options: CrossEntropy, facts: Facts) -> Callable[[Tensor, Batch], Tensor]:
    """The mean over rows; `label_smoothing` spreads that share evenly over all classes."""
    smoothing = options.label_smoothing

    def loss(answers: Tensor, batch: Batch) -> Tensor:
        return functional.cross_entropy(answers, batch["y"], label_smoothing=smoothing)

    return loss
