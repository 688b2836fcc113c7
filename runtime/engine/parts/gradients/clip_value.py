"""Clipping of every single number."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from contracts.request.gradients import ClipValue
from runtime.engine.kinds import Filter, Memory, filters


def memory(options: ClipValue, parameters: Sequence[Tensor]) -> Memory:
    """None."""
    return Memory()


def apply(options: ClipValue, gradients: list[Tensor], memory: Memory) -> None:
    """The same bits as torch's clip_grad_value_."""
    torch._foreach_clamp_min_(gradients, -options.limit)
    torch._foreach_clamp_max_(gradients, options.limit)


filters.part(ClipValue)(Filter(memory, apply))
