"""What happens to gradients between the backward pass and the optimizer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from contracts.request.optimizer import Centralise, ClipValue, Grokfast
from contracts.request.section import Section
from runtime.engine.kinds import Filter, Memory, filters


def norms(tensors: Sequence[Tensor]) -> Tensor:
    """The Euclidean norm of each tensor, stacked."""
    return torch.stack(torch._foreach_norm(list(tensors)))  # noqa: SLF001 - torch clips gradients by the same kernel


def norms_of(gradients: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """The norm of each gradient, stacked, and the norm of all together."""
    each = norms(gradients)
    return each, torch.linalg.vector_norm(each)


def clip(gradients: list[Tensor], norm: Tensor, limit: float) -> None:
    """Scale gradients in place so that their norm is at most `limit`; the same bits as torch's clip_grad_norm_."""
    torch._foreach_mul_(gradients, torch.clamp(limit / (norm + 1e-6), max=1.0))


def _no_memory(options: Section, parameters: Sequence[Tensor]) -> Memory:
    return Memory()


def _clip_value_apply(options: ClipValue, gradients: list[Tensor], memory: Memory) -> None:
    """The same bits as torch's clip_grad_value_."""
    torch._foreach_clamp_min_(gradients, -options.limit)
    torch._foreach_clamp_max_(gradients, options.limit)


filters.part(ClipValue)(Filter(_no_memory, _clip_value_apply))


def _centralise_apply(options: Centralise, gradients: list[Tensor], memory: Memory) -> None:
    """Every matrix or kernel: the mean over all but the first dimension is taken away."""
    for gradient in gradients:
        if gradient.dim() > 1:
            gradient.sub_(gradient.mean(dim=tuple(range(1, gradient.dim())), keepdim=True))


filters.part(Centralise)(Filter(_no_memory, _centralise_apply))


def _grokfast_memory(options: Grokfast, parameters: Sequence[Tensor]) -> Memory:
    """The running mean of each gradient, and whether it has begun."""
    begun = torch.zeros((), dtype=torch.float32, device=parameters[0].device)
    return Memory({"slow": [torch.zeros_like(one) for one in parameters]}, {"begun": begun})


def _grokfast_apply(options: Grokfast, gradients: list[Tensor], memory: Memory) -> None:
    """The mean begins as the first gradient; from then on it keeps `memory` of itself at each step."""
    slow, begun = memory.each["slow"], memory.shared["begun"]
    fresh = 1 - begun * options.memory
    torch._foreach_lerp_(slow, gradients, [fresh] * len(slow))
    torch._foreach_add_(gradients, slow, alpha=options.strength)
    begun.fill_(1)


filters.part(Grokfast)(Filter(_grokfast_memory, _grokfast_apply))
