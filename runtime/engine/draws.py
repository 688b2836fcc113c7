"""Chance as torch needs it: seeds of its generators, draws for many rows at once, the weights that models begin with.

Every draw is keyed, and an exact multiple of a power of two: the same on every machine.
"""

import math
import random

import numpy as np
import torch
from torch import Tensor, nn

from runtime.engine import random_keys
from runtime.engine.random_keys import Stream, extended


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


_SPREAD = np.float32(np.sqrt(3.0)) * np.float32(2**-16)
"""Four 16-bit numbers, added up, have this share of 1 as the inverse of their deviation."""


class Draws:
    """The draws of one change; each call takes the next ones."""

    def __init__(self, keys: np.ndarray, device: torch.device) -> None:
        self._keys = keys[:, None]
        self._device = device
        self._taken = 0

    def uniform(self, each: int = 1) -> Tensor:
        """So many float32 in [0, 1) for each row."""
        return self._placed((self._words(each) >> np.uint64(40)).astype(np.float32) * np.float32(2**-24))

    def bell(self, each: int = 1) -> Tensor:
        """So many float32 for each row, with mean 0 and deviation 1: sums of four uniform ones, within 3.5."""
        words = np.ascontiguousarray(self._words(each))
        four = words.view(np.uint16).reshape(*words.shape, 4).sum(axis=-1, dtype=np.int64)
        return self._placed((four - 131_070).astype(np.float32) * _SPREAD)

    def below(self, bound: int) -> Tensor:
        """For each row a whole number in [0, bound), which is at most 2**31."""
        high = (self._words(1) >> np.uint64(32)) * np.uint64(bound) >> np.uint64(32)
        return self._placed(high[:, 0].astype(np.int64))

    def _words(self, each: int) -> np.ndarray:
        counters = np.arange(self._taken, self._taken + each, dtype=np.uint64)
        self._taken += each
        return extended(self._keys, counters)

    def _placed(self, found: np.ndarray) -> Tensor:
        return torch.from_numpy(found).to(self._device)


def initialise(model: nn.Module, seed: int) -> None:
    """Overwrite the weights with uniform draws of torch's usual width."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.Embedding):
            bound = 1 / math.sqrt(module.weight[0].numel())
            for part, tensor in module.named_parameters(recurse=False):
                _draw(tensor, random_keys.mix(seed, Stream.WEIGHTS, *f"{name}.{part}".encode()), bound)


def _draw(tensor: Tensor, key: int, bound: float) -> None:
    draws = torch.from_numpy(random_keys.uniform(key, tensor.numel())).reshape(tensor.shape)
    with torch.no_grad():
        tensor.copy_((draws * 2 - 1) * bound)
