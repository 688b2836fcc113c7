"""Focal loss for classes."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from contracts.request.loss import Focal
from runtime.engine.class_weights import class_weights
from runtime.engine.facts import Facts
from runtime.engine.kinds import Batch, Loss, losses

LEAST = 1e-12


@losses.part(Focal)
def build(options: Focal, facts: Facts) -> Loss:
    """The mean over rows of cross-entropy times what was missing of certainty, to the power of `gamma`."""
    weights = class_weights(options.class_weights, facts)

    def loss(answers: Tensor, batch: Batch) -> Tensor:
        surprise = functional.cross_entropy(answers.float(), batch["y"], reduction="none")
        # What is certain has no slope; the power's own would be infinite there for a gamma below 1.
        missing = (-torch.expm1(-surprise)).clamp_min(LEAST)
        losses = missing.pow(options.gamma) * surprise
        return (losses * weights.beside(answers)[batch["y"]] if weights else losses).mean()

    return loss
