"""What a run works with, put together from a plan and its dataset; nothing is trained here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from torch import Tensor, nn

from runtime.engine import state
from runtime.engine.average import Average
from runtime.engine.dataset import Dataset
from runtime.engine.feed import Feed
from runtime.engine.filters import Filters
from runtime.engine.learner import Learner
from runtime.engine.movement import Movement
from runtime.engine.plan import Plan
from runtime.engine.precision import UnscaledPrecision, numbers
from runtime.engine.sampling import Sampler, sampler_of


@dataclass(frozen=True)
class Works:
    """Model, rows, and everything that has memory from step to step."""

    learner: Learner
    model: nn.Module
    movement: Movement
    filters: Filters
    sampler: Sampler
    feed: Feed
    numbers: UnscaledPrecision
    average: Average
    without: np.ndarray | None
    """Of every training row whether it is left out; None when none is."""

    @classmethod
    def of(cls, plan: Plan, dataset: Dataset, initial: state.Tensors | None = None) -> Self:
        """As they are before the first step; `initial` are weights to begin with."""
        request, resolved = plan.request, plan.resolved
        learner = Learner(request, dataset.facts)
        model = learner.ready(learner.build(), initial).to(resolved.device)
        learner.to(resolved.device)
        trained = {**dict(model.named_parameters()), **learner.learned}
        movement = Movement(learner.mover(), request.optimizer, trained, learner.groups(model))
        sampler = sampler_of(request, dataset)
        return cls(
            learner,
            model,
            movement,
            Filters(request.gradients, movement.parameters, movement.names),
            sampler,
            learner.training_feed(dataset, resolved.device, sampler),
            numbers(resolved.precision, resolved.device),
            Average(model, request.training.ema),
            _without(plan),
        )

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor with memory, alive, by name."""
        found = state.weights(self.model) | self.learner.learned
        for part in (self.movement, self.filters, self.numbers, self.average):
            found |= part.tensors()
        return found


def _without(plan: Plan) -> np.ndarray | None:
    if not plan.without:
        return None
    left_out = np.zeros(plan.resolved.rows, bool)
    for first, last in plan.without:
        left_out[first - 1 : last] = True
    return left_out
