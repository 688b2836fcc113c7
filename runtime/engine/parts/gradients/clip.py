"""Clipping by the norm of all gradients together."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from runtime.engine.norms import norms


def norms_of(gradients: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """The norm of each gradient, stacked, and the norm of all together."""
    each = norms(gradients)
    return each, torch.linalg.vector_norm(each)


def clip(gradients: list[Tensor], norm: Tensor, limit: float) -> None:
    """Scale gradients in place so that their norm is at most `limit`; the same bits as torch's clip_grad_norm_."""
    torch._foreach_mul_(gradients, torch.clamp(limit / (norm + 1e-6), max=1.0))
