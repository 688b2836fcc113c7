"""Gradients of weights with the mean of each unit taken away; no memory, no draws."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from contracts.request.gradients import Centralise
from runtime.engine.kinds import Filter, Memory, filters


def memory(options: Centralise, parameters: Sequence[Tensor]) -> Memory:
    """None."""
    return Memory()


def apply(options: Centralise, gradients: list[Tensor], memory: Memory) -> None:
    """Every matrix or kernel: the mean over all but the first dimension is taken away."""
    for gradient in gradients:
        if gradient.dim() > 1:
            gradient.sub_(gradient.mean(dim=tuple(range(1, gradient.dim())), keepdim=True))


filters.part(Centralise)(Filter(memory, apply))
