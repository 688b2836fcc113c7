"""Mean squared error."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from contracts.request.loss import Mse
from runtime.engine.facts import Facts
from runtime.engine.kinds import Batch, Loss, losses


@losses.part(Mse)
def build(options: Mse, facts: Facts) -> Loss:
    """In units of the target's variance: 1.0 is what always answering the mean would cost."""
    unit = 1.0 / facts.target_scale

    def loss(answers: Tensor, batch: Batch) -> Tensor:
        return functional.mse_loss(answers.reshape(-1) * unit, batch["y"].reshape(-1) * unit)

    return loss
