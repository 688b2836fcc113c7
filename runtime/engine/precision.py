"""In what number format a pass runs, and what small gradients need for it. Weights are always float32."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

FIRST_SCALE = 65536.0
GROWTH_STEPS = 2000


class UnscaledPrecision:
    """float32 throughout, or bfloat16 where autocast allows: gradients are what they are."""

    def __init__(self, precision: str, device: str) -> None:
        self._precision, self._device = precision, device

    def computing(self) -> AbstractContextManager[object]:
        """The context of forward passes."""
        return computing(self._precision, self._device)

    def backward(self, loss: Tensor) -> None:
        """Leave the gradient of the loss in the parameters."""
        loss.backward()  # type: ignore[no-untyped-call]

    def settle(self, gradients: list[Tensor]) -> bool:
        """Make gradients what they are; False when this attempt moves nothing."""
        return True

    def tensors(self) -> Mapping[str, Tensor]:
        """What is remembered from step to step."""
        return {}


class ScaledPrecision(UnscaledPrecision):
    """float16: losses are scaled up so that small gradients do not vanish; where they overflow the attempt is skipped.

    The scale doubles after 2000 attempts without overflow and halves at each one; it is part of the state.
    """

    def __init__(self, precision: str, device: str) -> None:
        super().__init__(precision, device)
        self._scale = torch.tensor(FIRST_SCALE, device=device)
        self._grown = torch.zeros((), dtype=torch.int32, device=device)

    def backward(self, loss: Tensor) -> None:
        super().backward(loss * self._scale)

    def settle(self, gradients: list[Tensor]) -> bool:
        found = torch.zeros((), device=self._scale.device)
        torch._amp_foreach_non_finite_check_and_unscale_(gradients, found, self._scale.reciprocal())
        torch._amp_update_scale_(self._scale, self._grown, found, 2.0, 0.5, GROWTH_STEPS)
        return not bool(found)

    def tensors(self) -> Mapping[str, Tensor]:
        return {"precision.scale": self._scale, "precision.grown": self._grown}


def numbers(precision: str, device: str) -> UnscaledPrecision:
    """The number format of a training run."""
    return (ScaledPrecision if precision == "fp16" else UnscaledPrecision)(precision, device)


def computing(precision: str, device: str) -> AbstractContextManager[object]:
    """The context of passes without gradients: nothing for fp32, autocast for the others."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device, torch.bfloat16 if precision == "bf16" else torch.float16)
