"""In what number format a pass runs. Master weights are always float32."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch


def computing(precision: str, device: str) -> AbstractContextManager[object]:
    """The context of forward passes: nothing for fp32, autocast for the others."""
    if precision == "fp32":
        return nullcontext()
    dtype = torch.bfloat16 if precision == "bf16" else torch.float16
    return torch.autocast(device, dtype)
