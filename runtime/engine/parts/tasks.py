"""What a session can learn: the facts that model and loss are made from, and what answers are held against."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from contracts.errors import InvalidRequest, Problem
from contracts.request.loss import Contrastive, CrossEntropy, Embedding, Mse
from contracts.request.section import Section
from runtime.engine.facts import Facts
from runtime.engine.kinds import Batch, DeviceConstant, TrainingTask, tasks
from runtime.engine.wrappers import per_feature


@tasks.part("classification")
class Classification(TrainingTask):
    """A class for each row. One number per class; the largest is the answer."""

    loss: ClassVar[Section] = CrossEntropy(type="cross_entropy")


@tasks.part("regression")
class Regression(TrainingTask):
    """A number for each row. One number, in the target's own units."""

    loss: ClassVar[Section] = Mse(type="mse")


@tasks.part("sequences")
class Sequences(TrainingTask):
    """The next token, at every place of a row of tokens.

    One number per token of the vocabulary at each place; the last place has nothing to be held against.
    """

    loss: ClassVar[Section] = CrossEntropy(type="cross_entropy")
    needs: ClassVar[tuple[str, ...]] = ("x",)

    def loss_inputs(self, answers: Tensor, batch: Batch) -> tuple[Tensor, Batch]:
        """All places of all rows, one after another."""
        return answers[:, :-1].reshape(-1, answers.shape[-1]), {"y": batch["x"][:, 1:].reshape(-1).long()}

    def metric_inputs(self, answers: Tensor, batch: Batch) -> Tensor:
        """For each row: the tokens' surprise together, how many were guessed, how many there were."""
        said, truth = answers[:, :-1].float(), batch["x"][:, 1:].long()
        surprise = functional.cross_entropy(said.flatten(0, 1), truth.reshape(-1), reduction="none").reshape(
            truth.shape
        )
        right = said.argmax(-1).eq(truth)
        return torch.stack([surprise.sum(1), right.sum(1), torch.ones_like(truth).sum(1)], dim=1)


@tasks.part("reconstruction")
class Reconstruction(TrainingTask):
    """The row itself, through something narrower than it.

    Answers have the shape and the units of `x`; errors count in units of each feature's deviation.
    """

    loss: ClassVar[Section] = Mse(type="mse")
    needs: ClassVar[tuple[str, ...]] = ("x",)

    def __init__(self, facts: Facts, loss: Section) -> None:
        super().__init__(facts, loss)
        self.facts = replace(facts, task="other", outputs=math.prod(facts.shape), target_mean=0.0, target_scale=1.0)
        self._inverse = DeviceConstant(per_feature([1 / one for one in facts.scale], facts))

    def loss_inputs(self, answers: Tensor, batch: Batch) -> tuple[Tensor, Batch]:
        """Both sides in units of the features' deviations."""
        inverse = self._inverse.beside(answers)
        return answers * inverse, {"y": batch["x"] * inverse}

    def metric_inputs(self, answers: Tensor, batch: Batch) -> Tensor:
        """For each row the mean of its squared errors."""
        said, truth = self.loss_inputs(answers.float(), batch)
        return (said - truth["y"]).square().flatten(1).mean(1, keepdim=True)


@tasks.part("embedding")
class EmbeddingTask(TrainingTask):
    """A place for each row, near rows of its class.

    As many numbers as the loss is wide; only their direction counts.
    """

    loss: ClassVar[Section] = Contrastive(type="contrastive")

    def __init__(self, facts: Facts, loss: Section) -> None:
        super().__init__(facts, loss)
        if facts.task != "classification" or not isinstance(loss, Embedding):
            message = f"rows are put near rows of their class, and the target is for {facts.task}"
            raise InvalidRequest([Problem("loss.type", message, "Leave the section `loss` out.")])
        self.facts = replace(facts, outputs=loss.width)
