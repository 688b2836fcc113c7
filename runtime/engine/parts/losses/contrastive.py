"""Supervised contrastive loss: in a batch, each row picks rows of its own class."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from contracts.request.loss import Contrastive
from runtime.engine.facts import Facts
from runtime.engine.kinds import Batch, Loss, losses
from runtime.engine.pairs import pairs

NEVER = -1e4


@losses.part(Contrastive)
def build(options: Contrastive, facts: Facts) -> Loss:
    """The mean, over rows that have a fellow in the batch, of how unlikely they were to pick one of those."""

    def loss(answers: Tensor, batch: Batch) -> Tensor:
        alike, fellows, itself = pairs(answers, batch["y"])
        chances = functional.log_softmax((alike / options.temperature).masked_fill(itself, NEVER), dim=1)
        count = fellows.sum(1)
        missed = -chances.masked_fill(~fellows, 0.0).sum(1) / count.clamp_min(1)
        return missed.sum() / (count > 0).sum().clamp_min(1)

    return loss
