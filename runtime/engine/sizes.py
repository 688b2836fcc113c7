"""What a training will hold in memory, counted from the shapes of its model before a byte of it is taken."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from contracts.errors import OutOfMemory
from contracts.request import Request
from contracts.request.optimizer import OwnOptimizer
from runtime.engine import kinds, state
from runtime.engine.facts import Facts
from runtime.engine.learner import Learner
from runtime.engine.movement import Movement

SINGLE = 4
"""Bytes of one parameter."""


class Unfilled(TorchFunctionMode):
    """Inside, tensors are made and not filled: to fill what has no bytes, torch imports an algebra system."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """See `TorchFunctionMode`."""
        name = getattr(func, "__name__", "")
        if name == "zeros_like":
            return torch.empty(args[0].shape, dtype=args[0].dtype, device=args[0].device)
        return args[0] if args and name in _FILLS else func(*args, **(kwargs or {}))


_FILLS = frozenset({"uniform_", "normal_", "trunc_normal_", "fill_", "zero_"})


@dataclass(frozen=True, slots=True)
class Sizes:
    """Bytes by what they are for; what one batch needs besides is not among them."""

    parameters: int
    weights: int
    gradients: int = 0
    optimizer: int = 0
    average: int = 0

    @classmethod
    def of(cls, request: Request, facts: Facts) -> Sizes | None:
        """Those of a model made of built-in parts; None for user code, which nobody can build without taking memory."""
        learner = Learner(request, facts)
        if learner.foreign:
            return None
        with Unfilled():
            model = learner.ready(learner.shapes())
            trained = dict(model.named_parameters())
            movement = Movement(learner.mover(), request.optimizer, trained, learner.groups(model))
        return cls(
            parameters=sum(one.numel() for one in trained.values()),
            weights=_bytes(state.weights(model).values()),
            gradients=_bytes(one for one in trained.values() if one.requires_grad),
            optimizer=_bytes(movement.tensors().values()),
            average=_bytes(trained.values()) if request.training.ema.decay else 0,
        )

    @classmethod
    def counted(cls, request: Request, parameters: int) -> Sizes:
        """At least those of so many parameters, whatever their shapes."""
        weights, frozen = SINGLE * parameters, bool(request.model.freeze)
        average = weights if request.training.ema.decay else 0
        memory = 0 if frozen or isinstance(request.optimizer, OwnOptimizer) else _remembered(request, parameters)
        return cls(parameters, weights, 0 if frozen else weights, memory, average)

    @property
    def state(self) -> int:
        """What a checkpoint holds."""
        return self.weights + self.optimizer + self.average

    def least(self, *, device: str) -> int:
        """The least that training takes of this machine's memory: state, gradients, and the copy for a checkpoint."""
        return self.state if device == "cuda" else 2 * self.state + self.gradients

    def refuse_beyond(self, free: int, *, device: str) -> None:
        """Raise `OutOfMemory`, with the figures, when training would need more than is free."""
        need = self.least(device=device)
        if need <= free:
            return
        parts = {"weights": self.weights, "gradients": self.gradients, "optimizer": self.optimizer}
        shown = ", ".join(f"{name} {_gib(size)}" for name, size in parts.items() if size)
        raise OutOfMemory(
            f"the model has {self.parameters} parameters; training needs at least {_gib(need)} of memory"
            f" ({shown}, and a copy of the state for checkpoints), and {_gib(free)} are free.",
            cure="Choose a smaller model (`model`), an optimizer that remembers less (sgd, adafactor), or free memory.",
            path="model",
        )


def _remembered(request: Request, parameters: int) -> int:
    """What the optimizer holds for a square matrix of about so many parameters."""
    side = math.isqrt(parameters)
    shape = [torch.empty((side, side), device="meta")]
    with Unfilled():
        memory = kinds.optimizers.of(request.optimizer).memory(request.optimizer, shape)
    return _bytes(memory.named("optimizer", ["one"], 0).values())


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(one.numel() * one.element_size() for one in tensors)


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"
