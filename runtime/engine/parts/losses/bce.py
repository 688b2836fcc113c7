"""Binary cross-entropy for classes, each by itself."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from contracts.request.loss import Bce
from runtime.engine.facts import Facts
from runtime.engine.kinds import Batch, Loss, losses
from runtime.engine.placed import Placed


@losses.part(Bce)
def build(options: Bce, facts: Facts) -> Loss:
    """The mean over rows and classes; a row should be of its own class and of no other."""
    classes = Placed(torch.arange(facts.outputs))

    def loss(answers: Tensor, batch: Batch) -> Tensor:
        truth = batch["y"][:, None] == classes.beside(answers)
        return functional.binary_cross_entropy_with_logits(answers.float(), truth.float())

    return loss
