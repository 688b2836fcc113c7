"""Triplet loss over the hardest rows of a batch."""

from __future__ import annotations

from torch import Tensor

from contracts.request.loss import Triplet
from runtime.engine.facts import Facts
from runtime.engine.kinds import Batch, Loss, losses
from runtime.engine.pairs import pairs

OUT_OF_REACH = 8.0


@losses.part(Triplet)
def build(options: Triplet, facts: Facts) -> Loss:
    """The mean, over rows that have a fellow and a stranger in the batch, of what is lacking of the margin.

    Distances are squared, on the unit sphere: from 0 to 4.
    """

    def loss(answers: Tensor, batch: Batch) -> Tensor:
        alike, fellows, itself = pairs(answers, batch["y"])
        strangers = ~(fellows | itself)
        far = 2 - 2 * alike
        fellow = far.masked_fill(~fellows, -OUT_OF_REACH).amax(1)
        stranger = far.masked_fill(~strangers, OUT_OF_REACH).amin(1)
        count = (fellows.any(1) & strangers.any(1)).sum()
        return (fellow - stranger + options.margin).relu().sum() / count.clamp_min(1)

    return loss
