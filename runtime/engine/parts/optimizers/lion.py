"""Lion: moves by the sign of a momentum."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from contracts.request.optimizer import Lion
from runtime.engine.kinds import Memory, Mover, optimizers


def memory(options: Lion, parameters: Sequence[Tensor]) -> Memory:
    """One momentum per parameter."""
    return Memory({"momentum": [torch.zeros_like(one) for one in parameters]})


def update(options: Lion, parameters: list[Tensor], gradients: list[Tensor], memory: Memory, rate: float) -> None:
    """The sign of momentum and gradient mixed by the first beta; the second one is the momentum's own."""
    momentum, (mix, keep) = memory.each["momentum"], options.betas
    signs = [torch.lerp(*both, mix) for both in zip(gradients, momentum, strict=True)]
    torch._foreach_sign_(signs)
    torch._foreach_mul_(parameters, 1 - rate * options.weight_decay)
    torch._foreach_add_(parameters, signs, alpha=-rate)
    torch._foreach_lerp_(momentum, gradients, 1 - keep)


optimizers.part(Lion)(Mover(memory, update))
