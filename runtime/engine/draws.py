"""Draws for many rows at once, each keyed by its row: exact multiples of powers of two, the same on every machine."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from runtime.engine.chance import extended

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
