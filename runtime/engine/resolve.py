"""What is known of a training before it begins: every `auto` as a number, and what it will hold in memory and on disk.

By pure rules of request and dataset; only threads and device look at the machine. The first claim records the numbers,
and nothing is decided later. Sizes are counted from shapes before a byte is taken.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from contracts.errors import InvalidRequest, OutOfMemory, Problem
from contracts.request import Request
from contracts.request.optimizer import OwnOptimizer
from runtime.engine import kinds, state
from runtime.engine.batches import check_augment
from runtime.engine.facts import Facts
from runtime.engine.learner import Learner
from runtime.engine.plan import ResolvedValues
from runtime.engine.ragged import ANY_LENGTH
from runtime.engine.sampling import check_sampler
from runtime.engine.state import Tensors, initial_root
from runtime.engine.update import Filters, OptimizerState

WINDOWS = ((10_000_000, 50), (30_000_000, 20), (100_000_000, 10))
SPAN_SECONDS = 60.0
STEP_SECONDS = 250e-6
FLOPS = 2e10
SPANS = 16


INHERITED = ("window", "every_steps", "evaluation_batch", "threads", "device")
"""Numbers that a session which begins in another's bits takes from it, so that both have the same grid."""


def resolve(
    request: Request,
    facts: Facts,
    *,
    cores: int,
    cuda: bool = False,
    initial: Tensors | None = None,
    inherited: Mapping[str, Any] | None = None,
) -> ResolvedValues:
    """The numbers of a session; raises `InvalidRequest` when request, data and weights to begin with do not fit.

    `inherited` are those of the session in whose bits it begins.
    """
    training, given = request.training, {name: inherited[name] for name in INHERITED} if inherited else {}
    # Windows of both are held against each other, so they tell the same.
    given |= {"sensors": inherited.get("sensors", 0)} if inherited else {}
    device = given.get("device", ("cuda" if cuda else "cpu") if training.device == "auto" else training.device)
    _check(request, facts, device, cuda=cuda)
    check_sampler(request, facts)
    check_augment(request.augment, facts)
    if (request.model.init is None) != (initial is None):
        message = "the request and what is handed in do not agree on whether there are weights to begin with"
        raise InvalidRequest([Problem("model.init", message, "Hand in the tensors of the file that it names.")])
    rows = facts.rows["train"]
    taken = training.batch_size * training.accumulate
    parameters = sum(one.numel() for one in _model(request, facts, initial).parameters())
    planned = -(-training.epochs * rows // taken)
    steps = request.limits.last_step(planned, rows, taken)
    window = next((size for most, size in WINDOWS if parameters <= most), 5)
    every = request.checkpoints.every_steps
    found = ResolvedValues(
        rows=rows,
        parameters=parameters,
        batch=training.batch_size,
        accumulate=training.accumulate,
        steps_total=steps,
        window=window,
        every_steps=_span(parameters, taken, steps, window) if every == "auto" else -(-every // window) * window,
        every_epochs=request.validation.every_epochs,
        evaluation_batch=max(training.batch_size, 256),
        threads=(1 if parameters < 1_000_000 else max(1, cores)) if training.threads == "auto" else training.threads,
        device=device,
        precision=training.precision,
        profile="exact" if request.reproducibility.deterministic else "fast",
        seed=request.reproducibility.seed,
        initial="" if initial is None else initial_root(initial),
        world_size=training.world_size,
        sensors=1,
        planned=planned if steps < planned else 0,
    )
    return replace(found, **given)


def _model(request: Request, facts: Facts, initial: Tensors | None) -> nn.Module:
    """The model as training begins with it; raises where the request names tensors that it does not have."""
    learner = Learner(request, facts)
    model = learner.ready(learner.build(), initial)
    learner.groups(model)
    learner.mover()
    return model


def _span(parameters: int, taken: int, steps: int, window: int) -> int:
    """About a minute of steps, and at least sixteen spans in a session that is long enough for them."""
    seconds = STEP_SECONDS + 6 * parameters * taken / FLOPS
    wanted = min(SPAN_SECONDS / seconds, steps / SPANS)
    return max(1, round(wanted / window)) * window


def _check(request: Request, facts: Facts, device: str, *, cuda: bool) -> None:
    problems = []
    if device == "cuda" and not cuda:
        problems.append(Problem("training.device", "this machine has no CUDA device", "Write `device: auto`."))
    if device == "cpu" and request.training.precision == "fp16":
        problems.append(Problem("training.precision", "fp16 needs a CUDA device", "Write `precision: bf16`."))
    if not facts.rows.get("train"):
        problems.append(Problem("data", "there are no rows to train on", "Give the training split some rows."))
    if not facts.rows.get("val"):
        problems.append(Problem("data.split.val", "there are no rows to evaluate on", "Make the share `val` larger."))
    if problems:
        raise InvalidRequest(problems)


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


def refuse_rows_beyond(free: int, resolved: ResolvedValues, facts: Facts, workers: int = 0) -> None:
    """Raise `OutOfMemory`, with the figures, when one batch and the order of a window's rows are more than is free.

    `workers` make two batches each ahead.
    """
    fixed = [one for one in facts.columns.values() if ANY_LENGTH not in one.shape]
    row = sum(np.dtype(one.dtype).itemsize * math.prod(one.shape) for one in fixed)
    steps, step = min(resolved.window, resolved.steps_total), resolved.batch * resolved.accumulate
    rows = max(resolved.batch, min(resolved.evaluation_batch, facts.rows["val"]))
    # A batch goes to where it is computed with; in what order rows come is counted in this machine's memory.
    rows += min(2 * workers, steps * resolved.accumulate) * resolved.batch
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
