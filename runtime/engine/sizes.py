"""What a training will hold in memory and on disk, counted from shapes and numbers before a byte of it is taken."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from contracts.errors import InvalidRequest, OutOfMemory, Problem
from contracts.request import Request
from contracts.request.optimizer import OwnOptimizer
from runtime.engine import kinds, state
from runtime.engine.facts import Facts
from runtime.engine.learner import Learner
from runtime.engine.plan import ResolvedValues
from runtime.engine.ragged import ANY_LENGTH
from runtime.engine.update import Filters, OptimizerState

SINGLE = 4
"""Bytes of one parameter."""

_FEWEST_CHECKPOINTS = 3
"""The last, the best, and one that is being written."""

_NUMBER = 8
"""Bytes of a row's number."""


class UnfilledTensors(TorchFunctionMode):
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
    filters: int = 0

    @classmethod
    def of(cls, request: Request, facts: Facts) -> Sizes | None:
        """Those of a model made of built-in parts; None for user code, which cannot be built without taking memory."""
        learner = Learner(request, facts)
        if learner.foreign:
            return None
        with UnfilledTensors():
            model = learner.ready(learner.shapes())
            trained = dict(model.named_parameters())
            movement = OptimizerState(learner.mover(), request.optimizer, trained, learner.groups(model))
        return cls(
            parameters=sum(one.numel() for one in trained.values()),
            weights=_bytes(state.weights(model).values()),
            gradients=_bytes(one for one in trained.values() if one.requires_grad),
            optimizer=_bytes(movement.tensors().values()),
            average=_bytes(trained.values()) if request.training.ema.decay else 0,
            filters=_filters(request, movement.parameters),
        )

    @classmethod
    def counted(cls, request: Request, parameters: int) -> Sizes:
        """A lower bound from the number of parameters alone, for any shapes."""
        weights, frozen = SINGLE * parameters, bool(request.model.freeze)
        average = weights if request.training.ema.decay else 0
        side = math.isqrt(parameters)
        square = [torch.empty((side, side), device="meta")]
        memory = 0
        if not frozen and not isinstance(request.optimizer, OwnOptimizer):
            with UnfilledTensors():
                held = kinds.optimizers.of(request.optimizer).memory(request.optimizer, square)
            memory = _bytes(held.named("optimizer", ["one"], 0).values())
        filters = 0 if frozen else _filters(request, square)
        return cls(parameters, weights, 0 if frozen else weights, memory, average, filters)

    @property
    def state(self) -> int:
        """Bytes of a checkpoint: weights, optimizer memory, average and filters."""
        return self.weights + self.optimizer + self.average + self.filters

    def least(self, *, device: str) -> int:
        """The least that training takes of this machine's memory: state, gradients, and the copy for a checkpoint."""
        return self.state if device == "cuda" else 2 * self.state + self.gradients

    def refuse_beyond(self, free: int, *, device: str) -> None:
        """Raise `OutOfMemory`, with the figures, when training would need more than is free."""
        need = self.least(device=device)
        if need <= free:
            return
        parts = {"weights": self.weights, "gradients": self.gradients, "optimizer": self.optimizer}
        parts |= {"average": self.average, "gradient filters": self.filters}
        shown = ", ".join(f"{name} {_gib(size)}" for name, size in parts.items() if size)
        raise OutOfMemory(
            f"the model has {self.parameters} parameters; training needs at least {_gib(need)} of memory"
            f" ({shown}, and a copy of the state for checkpoints), and {_gib(free)} are free.",
            cure="Choose a smaller model (`model`), an optimizer that remembers less (sgd, adafactor), or free memory.",
            path="model",
        )


def _filters(request: Request, parameters: Sequence[Tensor]) -> int:
    """What the gradient filters hold; each of a request may remember every parameter."""
    names = [str(number) for number in range(len(parameters))]
    with UnfilledTensors():
        return _bytes(Filters(request.gradients, parameters, names).tensors().values())


def refuse_rows_beyond(free: int, resolved: ResolvedValues, facts: Facts) -> None:
    """Raise `OutOfMemory`, with the figures, when one batch and the order of a window's rows are more than is free."""
    fixed = [one for one in facts.columns.values() if ANY_LENGTH not in one.shape]
    row = sum(np.dtype(one.dtype).itemsize * math.prod(one.shape) for one in fixed)
    steps, step = min(resolved.window, resolved.steps_total), resolved.batch * resolved.accumulate
    rows = max(resolved.batch, min(resolved.evaluation_batch, facts.rows["val"]))
    # A batch goes to where it is computed with; in what order rows come is counted in this machine's memory.
    need = steps * step * _NUMBER + (rows * row if resolved.device == "cpu" else 0)
    if need > free:
        raise OutOfMemory(
            f"{steps} steps of {resolved.batch} x {resolved.accumulate} rows take at least {_gib(need)} of memory, and"
            f" {_gib(free)} are free.",
            cure="Make `training.batch_size` or `training.accumulate` smaller, or free memory.",
            path="training.batch_size",
        )


def refuse_checkpoints_beyond(free: int, sizes: Sizes, request: Request, resolved: ResolvedValues) -> None:
    """Raise `InvalidRequest`, with the figures, when the checkpoints that are always kept do not fit on the disk.

    Those are the last, the best, and one that is being written; anchors are as many as fit into `budget_bytes`.
    """
    asked, written = request.checkpoints, resolved.steps_total // resolved.every_steps + 2
    count = min(asked.keep_last + asked.keep_best + 1, written)
    if asked.budget_bytes is not None:
        count = min(count, max(asked.budget_bytes // max(1, sizes.state), _FEWEST_CHECKPOINTS))
    need = sizes.state * count
    if need > free:
        message = f"{count} checkpoints of {_gib(sizes.state)} take {_gib(need)} of disk, and {_gib(free)} are free"
        cure = "Lower it and `checkpoints.keep_best`, choose a smaller model, or free some disk."
        raise InvalidRequest([Problem("checkpoints.keep_last", message, cure)])


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(one.numel() * one.element_size() for one in tensors)


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"
