"""Seeds the global generators of torch, numpy and Python from keys, so that hidden draws repeat too."""

from __future__ import annotations

import random

import numpy as np
import torch


def reseed(seed: int) -> None:
    """Set torch's generators; what drew from them before leaves no trace."""
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.default_generators[torch.cuda.current_device()].manual_seed(seed)


def reseed_all(seed: int) -> None:
    """As `reseed`, and also Python's and numpy's generators, which code of a user's may draw from."""
    reseed(seed)
    random.seed(seed)
    np.random.seed(seed & 0xFFFFFFFF)  # noqa: NPY002 - user code draws from the legacy global generator
