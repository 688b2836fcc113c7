"""Adafactor: second moments as the product of a row's and a column's, moves in units of each tensor's own size."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from contracts.request.optimizer import Adafactor
from runtime.engine.kinds import Memory, Mover, optimizers

TINY = torch.finfo(torch.float32).eps


def memory(options: Adafactor, parameters: Sequence[Tensor]) -> Memory:
    """Means over rows and columns for matrices and kernels; a vector has all its squares as `rows`, no `columns`."""
    rows = [torch.zeros_like(one[..., :1] if one.dim() > 1 else one) for one in parameters]
    columns = [torch.zeros_like(one[..., :1, :]) if one.dim() > 1 else one.new_zeros(0) for one in parameters]
    step = torch.zeros((), dtype=torch.float32, device=parameters[0].device)
    return Memory({"rows": rows, "columns": columns}, {"step": step})


def update(options: Adafactor, parameters: list[Tensor], gradients: list[Tensor], memory: Memory, rate: float) -> None:
    """As `torch.optim.Adafactor`, without bringing norms to the CPU."""
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


optimizers.part(Adafactor)(Mover(memory, update))
