"""A constant that goes where it is needed, once for each device. It is no state: it follows from facts and options."""

from __future__ import annotations

import torch
from torch import Tensor


class DeviceConstant:
    """One constant, float32."""

    def __init__(self, values: Tensor) -> None:
        self._on = {torch.device("cpu"): values}

    def beside(self, tensor: Tensor) -> Tensor:
        """The constant on the device of a tensor."""
        found = self._on.get(tensor.device)
        if found is None:
            found = self._on[tensor.device] = next(iter(self._on.values())).to(tensor.device)
        return found
