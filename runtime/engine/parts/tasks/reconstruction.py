"""The row itself, through something narrower than it."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import ClassVar

from torch import Tensor

from contracts.request.loss import Mse
from contracts.request.section import Section
from runtime.engine.aim import Aim, tasks
from runtime.engine.facts import Facts
from runtime.engine.kinds import Batch
from runtime.engine.placed import Placed
from runtime.engine.standard import per_feature


@tasks.part("reconstruction")
class Reconstruction(Aim):
    """Answers have the shape and the units of `x`; errors count in units of each feature's deviation."""

    loss: ClassVar[Section] = Mse(type="mse")
    needs: ClassVar[tuple[str, ...]] = ("x",)

    def __init__(self, facts: Facts, loss: Section) -> None:
        super().__init__(facts, loss)
        self.facts = replace(facts, task="other", outputs=math.prod(facts.shape), target_mean=0.0, target_scale=1.0)
        self._inverse = Placed(per_feature([1 / one for one in facts.scale], facts))

    def held(self, answers: Tensor, batch: Batch) -> tuple[Tensor, Batch]:
        """Both sides in units of the features' deviations."""
        inverse = self._inverse.beside(answers)
        return answers * inverse, {"y": batch["x"] * inverse}

    def kept(self, answers: Tensor, batch: Batch) -> Tensor:
        """For each row the mean of its squared errors."""
        said, truth = self.held(answers.float(), batch)
        return (said - truth["y"]).square().flatten(1).mean(1, keepdim=True)
