"""The frame around every built-in model: raw rows in, answers in the target's own units out. No architecture is here.

Scaling lives inside the model, as buffers, so that an exported model takes raw rows and the prepared data stays raw.
"""

import math
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from contracts.errors import InvalidRequest, Problem
from contracts.request.model import Activation
from runtime.engine.facts import Facts

Body = TypeVar("Body", bound=nn.Module)
ACTIVATIONS: dict[Activation, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU, "tanh": nn.Tanh, "silu": nn.SiLU}


def stored_as(path: str) -> Callable[[type[Body]], type[Body]]:
    """Decorator: the name under which files of exported models hold a class, wherever it is defined.

    An audit makes such files again and compares digests, and `torch.export` and TorchScript write the names of classes
    into them: these are stored names, which never change.
    """

    def name(made: type[Body]) -> type[Body]:
        made.__module__, _, made.__name__ = path.rpartition(".")
        made.__qualname__ = made.__name__
        return made

    return name


@stored_as("runtime.engine.standard.Scaled")
class InputScaling(nn.Module):
    """Inputs with the training split's mean taken away, in units of its deviation."""

    mean: Tensor
    inverse: Tensor

    def __init__(self, facts: Facts) -> None:
        super().__init__()
        self.register_buffer("mean", per_feature(facts.mean, facts))
        self.register_buffer("inverse", per_feature([1 / one for one in facts.scale], facts))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) * self.inverse


@stored_as("runtime.engine.standard.Unscaled")
class TargetUnits(nn.Module):
    """Answers brought from units of the target's deviation to the target's own units."""

    mean: Tensor
    scale: Tensor

    def __init__(self, facts: Facts) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(facts.target_mean, dtype=torch.float32))
        self.register_buffer("scale", torch.tensor(facts.target_scale, dtype=torch.float32))

    def forward(self, y: Tensor) -> Tensor:
        return y * self.scale + self.mean


@stored_as("runtime.engine.standard.Rebuilt")
class FeatureUnits(nn.Module):
    """Answers brought from units of each feature's deviation to the units of `x`: what `InputScaling` does, undone."""

    mean: Tensor
    scale: Tensor

    def __init__(self, facts: Facts) -> None:
        super().__init__()
        self.register_buffer("mean", per_feature(facts.mean, facts))
        self.register_buffer("scale", per_feature(facts.scale, facts))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale + self.mean


@stored_as("runtime.engine.standard.Pooled")
class PlaneMean(nn.Module):
    """The mean over the image's plane; adaptive pooling has no deterministic backward on CUDA."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.mean(x, dim=(2, 3))


@stored_as("runtime.engine.standard.Framed")
class ScaledModel(nn.Module):
    """Scaling, body, and for numbers the way back to their own units."""

    def __init__(self, body: nn.Module, facts: Facts, *, standardize: bool, answers: nn.Module | None = None) -> None:
        super().__init__()
        self.inputs = InputScaling(facts) if standardize and facts.mean else nn.Identity()
        self.body = body
        self.answers = answers or (TargetUnits(facts) if facts.task == "regression" else nn.Identity())

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.answers(self.body(self.inputs(x.float())))
        return answer


@stored_as("runtime.engine.standard.OfTokens")
class OfTokens(nn.Module):
    """A body whose inputs are numbers of tokens, which nothing scales."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.body(x)
        return answer


def framed(body: nn.Module, facts: Facts, *, standardize: bool, answers: nn.Module | None = None) -> nn.Module:
    """A built-in model around its body; `answers` is another way back to units than the task's."""
    return ScaledModel(body, facts, standardize=standardize, answers=answers)


def per_feature(values: Sequence[float], facts: Facts) -> Tensor:
    """One number per channel of images or per feature, in a shape that goes with rows of `x`."""
    shape = (len(values), 1, 1) if len(facts.shape) == 3 else facts.shape
    return torch.tensor(values, dtype=torch.float32).reshape(shape)


def flat_width(facts: Facts) -> int:
    """How many numbers one row of `x` has."""
    return math.prod(facts.shape)


def image_shape(facts: Facts) -> tuple[int, int, int]:
    """Channels, height and width; raises `InvalidRequest` when rows are no images."""
    if len(facts.shape) != 3:
        message = f"this architecture needs images, and rows have the shape {facts.shape!r}"
        raise InvalidRequest([Problem("model.architecture", message, "Choose `architecture: mlp`.")])
    channels, height, width = facts.shape
    return channels, height, width
