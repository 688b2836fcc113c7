"""Huber's loss: squared near zero, linear far out."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from contracts.request.loss import Huber
from runtime.engine.facts import Facts
from runtime.engine.kinds import Batch, Loss, losses


@losses.part(Huber)
def build(options: Huber, facts: Facts) -> Loss:
    """In units of the target's deviation, as `delta` is."""
    unit, delta = 1.0 / facts.target_scale, options.delta

    def loss(answers: Tensor, batch: Batch) -> Tensor:
        return functional.huber_loss(answers.reshape(-1) * unit, batch["y"].reshape(-1) * unit, delta=delta)

    return loss
