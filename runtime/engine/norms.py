"""Norms of many tensors at once, by torch's batch kernel; nothing else is measured here."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def norms(tensors: Sequence[Tensor]) -> Tensor:
    """The Euclidean norm of each tensor, stacked."""
    return torch.stack(torch._foreach_norm(list(tensors)))  # noqa: SLF001 - torch clips gradients by the same kernel
