"""One update attempt, and what it works with. Rows, seeds and settings come from the loop, which also makes windows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
import torch
from torch import Tensor, nn

from contracts.errors import UserCodeFailed
from runtime.engine import state
from runtime.engine.batches import BatchRows, Feed
from runtime.engine.dataset import Dataset
from runtime.engine.learner import Learner
from runtime.engine.parts.gradients import clip, norms_of
from runtime.engine.passes import UnscaledPrecision, number_format
from runtime.engine.plan import Plan, StepSettings
from runtime.engine.reduction import Gather, RankGradients, alone, reduce_gradients
from runtime.engine.sampling import Sampler, sampler_of
from runtime.engine.update import Average, Filters, OptimizerState


@dataclass(frozen=True)
class TrainingSetup:
    """Model, rows, and everything that has memory from step to step."""

    learner: Learner
    model: nn.Module
    movement: OptimizerState
    filters: Filters
    sampler: Sampler
    feed: Feed
    number_format: UnscaledPrecision
    average: Average
    rank: int = 0
    world_size: int = 1
    gather: Gather = alone

    @classmethod
    def of(cls, plan: Plan, dataset: Dataset, initial: state.Tensors | None = None, step: int = 0) -> Self:
        """As they are before the first step; `initial` are weights to begin with.

        Of what decisions changed in the request it has what holds at `step`; names and shapes of tensors never change.
        """
        request, resolved = plan.request_at(step), plan.resolved
        learner = Learner(request, dataset.facts)
        model = learner.ready(learner.build(), initial).to(resolved.device)
        learner.to(resolved.device)
        trained = {**dict(model.named_parameters()), **learner.learned}
        movement = OptimizerState(learner.mover(), request.optimizer, trained, learner.groups(model))
        sampler = sampler_of(request, dataset)
        return cls(
            learner,
            model,
            movement,
            Filters(request.gradients, movement.parameters, movement.names),
            sampler,
            learner.training_feed(dataset, resolved.device, sampler),
            number_format(resolved.precision, resolved.device),
            Average(model, request.training.ema),
            resolved.rank,
            resolved.world_size,
        )

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor with memory, alive, by name."""
        found = state.weights(self.model) | self.learner.learned
        for part in (self.movement, self.filters, self.number_format, self.average):
            found |= part.tensors()
        return found


def left_out(plan: Plan, step: int) -> np.ndarray | None:
    """Of every training row whether the attempt after `step` finished ones leaves it out; None when none is."""
    runs = plan.without_at(step)
    if not runs:
        return None
    rows = np.zeros(plan.resolved.rows, bool)
    for first, last in runs:
        rows[first - 1 : last] = True
    return rows


Part = tuple[int, BatchRows]
"""The seed of one micro-step and its rows."""


@dataclass(frozen=True, slots=True)
class StepResult:
    """What an attempt noticed; the norms of each gradient and of all are there when it looked.

    `held` are the places, among the trained parameters, of those that got a gradient.
    """

    loss: Tensor
    scalars: Mapping[str, Tensor]
    held: Sequence[int]
    norms: Tensor | None
    norm: Tensor | None


class AttemptWatch(Protocol):
    """Looks at the gradients of an attempt, and changes none."""

    def part(self, rows: int) -> None:
        """Hear that one of several parts, of so many rows, has added its share to the parameters' gradients."""

    def gradients(self, held: Sequence[int], gradients: Sequence[Tensor]) -> None:
        """See the gradients of the attempt before they are clipped, and the places of their parameters."""


def attempt(
    setup: TrainingSetup, now: StepSettings, parts: Sequence[Part], *, look: bool, watch: AttemptWatch | None = None
) -> StepResult:
    """Move the weights once, down the gradient of the mean loss over the rows of all parts, of every rank.

    Loss and scalars are those of this rank. Parts without rows, of which all were left out, weigh nothing; when there
    are only such, nothing is moved.
    """
    parts = [(seed, rows) for seed, rows in parts if len(rows.rows)]
    if not parts:
        return idle(setup)
    loss, scalars = descend(setup, parts, watch)
    own = RankGradients(setup.rank, sum(len(rows.rows) for _, rows in parts), *setup.movement.gradients())
    held, gradients = reduce_gradients(setup.gather(own), setup.world_size)
    if gradients is not own.gradients:
        setup.movement.adopt(held, gradients)
    if not gradients:
        raise UserCodeFailed("no parameter got a gradient", cure="Compute the loss from the model's answers.")
    sound = setup.number_format.settle(gradients)
    if sound:
        setup.filters.apply(gradients, held)
    if watch is not None:
        watch.gradients(held, gradients)
    norms = norm = None
    if look or now.grad_clip is not None:
        norms, norm = norms_of(gradients)
    if norm is not None and now.grad_clip is not None:
        clip(gradients, norm, now.grad_clip)
    if sound:
        setup.movement.move(now.learning_rate)
        setup.average.follow(now.averaging)
    for parameter in setup.movement.parameters:
        parameter.grad = None
    return StepResult(loss, scalars, held, norms, norm)


def idle(setup: TrainingSetup) -> StepResult:
    """What an attempt without rows notices: nothing, and so a loss of 0."""
    nothing = torch.zeros((), device=setup.movement.parameters[0].device)
    return StepResult(nothing, {}, (), nothing.new_zeros(0), nothing)


def descend(
    setup: TrainingSetup, parts: Sequence[Part], watch: AttemptWatch | None = None
) -> tuple[Tensor, Mapping[str, Tensor]]:
    """Leave the gradient of the mean loss over the rows of all parts in the parameters; every part has rows."""
    sizes = [len(rows.rows) for _, rows in parts]
    if len(parts) == 1:
        return _micro_step(setup, *parts[0], 1.0)
    told = list[tuple[Tensor, Mapping[str, Tensor]]]()
    for part, size in zip(parts, sizes, strict=True):
        told.append(_micro_step(setup, *part, sum(sizes) / size))
        if watch is not None:
            watch.part(size)
    mean = WeightedMean(sizes)
    scalars = {name: mean.of([recorded[name] for _, recorded in told]) for name in told[0][1]}
    return mean.of([loss for loss, _ in told]), scalars


def _micro_step(setup: TrainingSetup, seed: int, rows: BatchRows, parts: float) -> tuple[Tensor, Mapping[str, Tensor]]:
    """`parts` is how many parts of this size there would be: the share of its rows in all, turned round."""
    setup.learner.reseed(seed)
    batch = setup.feed.batch(rows)
    with setup.number_format.computing():
        loss, scalars = setup.learner.objective(setup.model, batch)
    setup.number_format.backward(loss / parts if parts > 1 else loss)
    return loss.detach(), scalars


class WeightedMean:
    """The mean over rows from means over parts of these sizes."""

    def __init__(self, sizes: Sequence[int]) -> None:
        self._sizes = sizes if len(set(sizes)) > 1 else ()

    def of(self, values: Sequence[Tensor]) -> Tensor:
        """Parts of one size count alike."""
        stacked = torch.stack(list(values))
        if not self._sizes:
            return stacked.mean()
        weights = torch.tensor(self._sizes, dtype=stacked.dtype, device=stacked.device)
        return (stacked * weights).sum() / sum(self._sizes)
