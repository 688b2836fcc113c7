"""The weights that built-in models begin with: integer draws, scaled exactly, the same on every machine."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from runtime.engine import chance
from runtime.engine.chance import Stream


def initialise(model: nn.Module, seed: int) -> None:
    """Overwrite the weights with uniform draws of torch's usual width."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.Embedding):
            bound = 1 / math.sqrt(module.weight[0].numel())
            for part, tensor in module.named_parameters(recurse=False):
                _draw(tensor, chance.mix(seed, Stream.WEIGHTS, *f"{name}.{part}".encode()), bound)


def _draw(tensor: Tensor, key: int, bound: float) -> None:
    draws = torch.from_numpy(chance.uniform(key, tensor.numel())).reshape(tensor.shape)
    with torch.no_grad():
        tensor.copy_((draws * 2 - 1) * bound)
