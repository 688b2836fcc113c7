"""Cross-entropy for classes."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from contracts.request.loss import CrossEntropy
from runtime.engine.class_weights import class_weights
from runtime.engine.facts import Facts
from runtime.engine.kinds import Batch, Loss, losses


@losses.part(CrossEntropy)
def build(options: CrossEntropy, facts: Facts) -> Loss:
    """The mean over rows, each times the weight of its class; `label_smoothing` spreads evenly over all classes."""
    smoothing, weights = options.label_smoothing, class_weights(options.class_weights, facts)

    def loss(answers: Tensor, batch: Batch) -> Tensor:
        return functional.cross_entropy(answers, batch["y"], label_smoothing=smoothing)

    def weighted(answers: Tensor, batch: Batch) -> Tensor:
        weight = weights.beside(answers) if weights else None
        total = functional.cross_entropy(answers, batch["y"], weight, reduction="sum", label_smoothing=smoothing)
        return total / len(answers)

    return weighted if weights else loss
