"""Gradients with their slow part made stronger, as Grokfast's running mean does."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from contracts.request.gradients import Grokfast
from runtime.engine.kinds import Filter, Memory, filters


def memory(options: Grokfast, parameters: Sequence[Tensor]) -> Memory:
    """The running mean of each gradient, and whether it has begun."""
    begun = torch.zeros((), dtype=torch.float32, device=parameters[0].device)
    return Memory({"slow": [torch.zeros_like(one) for one in parameters]}, {"begun": begun})


def apply(options: Grokfast, gradients: list[Tensor], memory: Memory) -> None:
    """The mean begins as the first gradient; from then on it keeps `memory` of itself at each step."""
    slow, begun = memory.each["slow"], memory.shared["begun"]
    fresh = 1 - begun * options.memory
    torch._foreach_lerp_(slow, gradients, [fresh] * len(slow))
    torch._foreach_add_(gradients, slow, alpha=options.strength)
    begun.fill_(1)


filters.part(Grokfast)(Filter(memory, apply))
