"""Optimizers: memory and update of one group of parameters, by torch's fused kernels where there are some."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from contracts.request.optimizer import Adafactor, Adam, AdamW, Lion, Sgd
from runtime.engine.kinds import Memory, OptimizerPart, optimizers


def _sgd_memory(options: Sgd, parameters: Sequence[Tensor]) -> Memory:
    """One velocity tensor of zeros per parameter when there is momentum, else nothing."""
    return Memory({"velocity": [torch.zeros_like(one) for one in parameters]} if options.momentum else {})


def _sgd_update(options: Sgd, parameters: list[Tensor], gradients: list[Tensor], memory: Memory, rate: float) -> None:
    """Stochastic gradient descent with momentum, by torch's fused kernel.

    The same bits as `torch.optim.SGD(fused=True)`.
    """
    torch._fused_sgd_(
        parameters,
        gradients,
        memory.each.get("velocity", []),
        lr=rate,
        weight_decay=options.weight_decay,
        momentum=options.momentum,
        dampening=0.0,
        nesterov=options.nesterov,
        maximize=False,
        is_first_step=False,
    )


optimizers.part(Sgd)(OptimizerPart(_sgd_memory, _sgd_update))


def _moments(options: Adam | AdamW, parameters: Sequence[Tensor]) -> Memory:
    """Two moments per parameter and one step counter for the group."""
    moments = ("first_moment", "second_moment")
    each = {name: [torch.zeros_like(one) for one in parameters] for name in moments}
    return Memory(each, {"step": torch.zeros((), dtype=torch.float32, device=parameters[0].device)})


def _fused(kernel: Callable[..., Any]) -> Callable[[Any, list[Tensor], list[Tensor], Memory, float], None]:
    """The update by one of torch's fused kernels, which take the same arguments and give the bits of torch's own."""

    def update(
        options: Adam | AdamW, parameters: list[Tensor], gradients: list[Tensor], memory: Memory, rate: float
    ) -> None:
        step = memory.shared["step"].add_(1)
        kernel(
            parameters,
            gradients,
            memory.each["first_moment"],
            memory.each["second_moment"],
            [],
            [step] * len(parameters),
            lr=rate,
            beta1=options.betas[0],
            beta2=options.betas[1],
            weight_decay=options.weight_decay,
            eps=options.epsilon,
            amsgrad=False,
            maximize=False,
        )

    return update


# The same bits as `torch.optim.Adam(fused=True)` and `torch.optim.AdamW(fused=True)`.
optimizers.part(Adam)(OptimizerPart(_moments, _fused(torch._fused_adam_)))
optimizers.part(AdamW)(OptimizerPart(_moments, _fused(torch._fused_adamw_)))


def _lion_memory(options: Lion, parameters: Sequence[Tensor]) -> Memory:
    """One momentum per parameter."""
    return Memory({"momentum": [torch.zeros_like(one) for one in parameters]})


def _lion_update(options: Lion, parameters: list[Tensor], gradients: list[Tensor], memory: Memory, rate: float) -> None:
    """Lion: moves by the sign of a momentum.

    The sign of momentum and gradient mixed by the first beta; the second one is the momentum's own.
    """
    momentum, (mix, keep) = memory.each["momentum"], options.betas
    signs = [torch.lerp(*both, mix) for both in zip(gradients, momentum, strict=True)]
    torch._foreach_sign_(signs)
    torch._foreach_mul_(parameters, 1 - rate * options.weight_decay)
    torch._foreach_add_(parameters, signs, alpha=-rate)
    torch._foreach_lerp_(momentum, gradients, 1 - keep)


optimizers.part(Lion)(OptimizerPart(_lion_memory, _lion_update))


TINY = torch.finfo(torch.float32).eps


def _adafactor_memory(options: Adafactor, parameters: Sequence[Tensor]) -> Memory:
    """Means over rows and columns for matrices and kernels; a vector has all its squares as `rows`, no `columns`."""
    rows = [torch.zeros_like(one[..., :1] if one.dim() > 1 else one) for one in parameters]
    columns = [torch.zeros_like(one[..., :1, :]) if one.dim() > 1 else one.new_zeros(0) for one in parameters]
    step = torch.zeros((), dtype=torch.float32, device=parameters[0].device)
    return Memory({"rows": rows, "columns": columns}, {"step": step})


def _adafactor_update(
    options: Adafactor, parameters: list[Tensor], gradients: list[Tensor], memory: Memory, rate: float
) -> None:
    """Adafactor: second moments as the product of a row's and a column's, moves in units of each tensor's own size.

    As `torch.optim.Adafactor`, without bringing norms to the CPU.
    """
    step = memory.shared["step"].add_(1).item()
    fresh, most = step**-options.forget, min(rate, 1 / math.sqrt(step))
    moved = zip(parameters, gradients, memory.each["rows"], memory.each["columns"], strict=True)
    for parameter, gradient, rows, columns in moved:
        size = _rms(parameter).clamp_(min=options.smallest)
        change = _variance(gradient, rows, columns, fresh).clamp_(min=TINY * TINY).rsqrt_().mul_(gradient)
        parameter.mul_(1 - rate * options.weight_decay)
        parameter.sub_(change.mul_(most * size / (_rms(change) / options.clip).clamp_(min=1.0)))


def _variance(gradient: Tensor, rows: Tensor, columns: Tensor, fresh: float) -> Tensor:
    """The mean squares of a gradient, with `fresh` of the newest in them."""
    squares = gradient.square()
    if gradient.dim() < 2:
        return rows.lerp_(squares, fresh).clone()
    rows.lerp_(squares.mean(-1, keepdim=True), fresh)
    columns.lerp_(squares.mean(-2, keepdim=True), fresh)
    return (rows @ columns).div_(rows.mean(-2, keepdim=True).clamp_(min=TINY))


def _rms(tensor: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(tensor)
    return norm / math.sqrt(tensor.numel())


optimizers.part(Adafactor)(OptimizerPart(_adafactor_memory, _adafactor_update))
