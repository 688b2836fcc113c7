"""Losses, each made from its options and the data's facts; answers and batch come as the task hands them over."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from contracts.errors import InvalidRequest, Problem
from contracts.request.loss import Bce, ClassWeights, Contrastive, CrossEntropy, Focal, Huber, Mse, Triplet
from runtime.engine.facts import Facts
from runtime.engine.kinds import Batch, DeviceConstant, Loss, losses

PLACE = "loss.class_weights"


def class_weights(chosen: ClassWeights, facts: Facts) -> DeviceConstant | None:
    """One weight per class; None when all are equal. Raises `InvalidRequest` when there are too few or too many."""
    if chosen == "equal":
        return None
    if chosen == "balanced":
        if len(facts.counts) != facts.outputs:
            message = "how often each class occurs was not counted when this data was prepared"
            raise InvalidRequest([Problem(PLACE, message, "Give the weights as a list.")])
        # Rows over classes over rows of the class; a class without rows counts nothing.
        present, total = sum(count > 0 for count in facts.counts), sum(facts.counts)
        balanced = [total / (present * count) if count else 0.0 for count in facts.counts]
        return DeviceConstant(torch.tensor(balanced, dtype=torch.float32))
    if len(chosen) != facts.outputs:
        message = f"there are {len(chosen)} weights, and {facts.outputs} classes"
        raise InvalidRequest([Problem(PLACE, message, "Give one weight per class, or `balanced`.")])
    return DeviceConstant(torch.tensor(chosen, dtype=torch.float32))


class Pairs(NamedTuple):
    """For each row and each other: the cosine between their answers, whether they are fellows, whether it is itself."""

    alike: Tensor
    fellows: Tensor
    itself: Tensor


def pairs(answers: Tensor, classes: Tensor) -> Pairs:
    """Fellows are other rows of the same class."""
    directions = functional.normalize(answers.float(), dim=1)
    itself = torch.eye(len(answers), dtype=torch.bool, device=answers.device)
    fellows = (classes[:, None] == classes[None, :]) & ~itself
    return Pairs(directions @ directions.T, fellows, itself)


@losses.part(CrossEntropy)
def cross_entropy(options: CrossEntropy, facts: Facts) -> Loss:
    """Cross-entropy for classes.

    The mean over rows, each times the weight of its class; `label_smoothing` spreads evenly over all classes.
    """
    smoothing, weights = options.label_smoothing, class_weights(options.class_weights, facts)

    def loss(answers: Tensor, batch: Batch) -> Tensor:
        return functional.cross_entropy(answers, batch["y"], label_smoothing=smoothing)

    def weighted(answers: Tensor, batch: Batch) -> Tensor:
        weight = weights.beside(answers) if weights else None
        total = functional.cross_entropy(answers, batch["y"], weight, reduction="sum", label_smoothing=smoothing)
        return total / len(answers)

    return weighted if weights else loss


LEAST = 1e-12


@losses.part(Focal)
def focal(options: Focal, facts: Facts) -> Loss:
    """Focal loss for classes.

    The mean over rows of cross-entropy times what was missing of certainty, to the power of `gamma`.
    """
    weights = class_weights(options.class_weights, facts)

    def loss(answers: Tensor, batch: Batch) -> Tensor:
        surprise = functional.cross_entropy(answers.float(), batch["y"], reduction="none")
        # What is certain has no slope; the power's own would be infinite there for a gamma below 1.
        missing = (-torch.expm1(-surprise)).clamp_min(LEAST)
        losses = missing.pow(options.gamma) * surprise
        return (losses * weights.beside(answers)[batch["y"]] if weights else losses).mean()

    return loss


@losses.part(Bce)
def bce(options: Bce, facts: Facts) -> Loss:
    """Binary cross-entropy for classes, each by itself.

    The mean over rows and classes; a row should be of its own class and of no other.
    """
    classes = DeviceConstant(torch.arange(facts.outputs))

    def loss(answers: Tensor, batch: Batch) -> Tensor:
        truth = batch["y"][:, None] == classes.beside(answers)
        return functional.binary_cross_entropy_with_logits(answers.float(), truth.float())

    return loss


@losses.part(Mse)
def mse(options: Mse, facts: Facts) -> Loss:
    """Mean squared error. In units of the target's variance: 1.0 is what always answering the mean would cost."""
    unit = 1.0 / facts.target_scale

    def loss(answers: Tensor, batch: Batch) -> Tensor:
        return functional.mse_loss(answers.reshape(-1) * unit, batch["y"].reshape(-1) * unit)

    return loss


@losses.part(Huber)
def huber(options: Huber, facts: Facts) -> Loss:
    """Huber's loss: squared near zero, linear far out. In units of the target's deviation, as `delta` is."""
    unit, delta = 1.0 / facts.target_scale, options.delta

    def loss(answers: Tensor, batch: Batch) -> Tensor:
        return functional.huber_loss(answers.reshape(-1) * unit, batch["y"].reshape(-1) * unit, delta=delta)

    return loss


NEVER = -1e4


@losses.part(Contrastive)
def contrastive(options: Contrastive, facts: Facts) -> Loss:
    """Supervised contrastive loss: in a batch, each row picks rows of its own class.

    The mean, over rows that have a fellow in the batch, of how unlikely they were to pick one of those.
    """

    def loss(answers: Tensor, batch: Batch) -> Tensor:
        alike, fellows, itself = pairs(answers, batch["y"])
        chances = functional.log_softmax((alike / options.temperature).masked_fill(itself, NEVER), dim=1)
        count = fellows.sum(1)
        missed = -chances.masked_fill(~fellows, 0.0).sum(1) / count.clamp_min(1)
        return missed.sum() / (count > 0).sum().clamp_min(1)

    return loss


OUT_OF_REACH = 8.0


@losses.part(Triplet)
def triplet(options: Triplet, facts: Facts) -> Loss:
    """Triplet loss over the hardest rows of a batch.

    The mean, over rows that have a fellow and a stranger in the batch, of what is lacking of the margin.

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
