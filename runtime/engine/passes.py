"""How a pass is computed: in what number format, and how much of it is kept for the backward pass.

Weights are always float32. With `recompute`, of a chain of layers only what lies between its pieces is kept: less
memory for more time.
"""

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from contracts.errors import InvalidRequest, Problem

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


def number_format(precision: str, device: str) -> UnscaledPrecision:
    """The number format of a training run."""
    return (ScaledPrecision if precision == "fp16" else UnscaledPrecision)(precision, device)


def computing(precision: str, device: str) -> AbstractContextManager[object]:
    """The context of passes without gradients: nothing for fp32, autocast for the others."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device, torch.bfloat16 if precision == "bf16" else torch.float16)


Layer = Callable[[Tensor], Tensor]

second_pass: ContextVar[bool] = ContextVar("again", default=False)
"""True while a pass is computed a second time: hooks that observe it have seen it already."""


def recompute(model: nn.Module) -> None:
    """Cut every outermost chain of layers (`nn.Sequential`) into about as many pieces as each has layers."""
    chains = list(_chains(model))
    if not chains:
        message = "this model has no chain of layers to be cut into pieces"
        raise InvalidRequest([Problem("training.recompute", message, "Put its layers into an `nn.Sequential`.")])
    for chain in chains:
        chain.forward = _in_pieces(list(chain))  # type: ignore[method-assign]


def _chains(module: nn.Module) -> Iterator[nn.Sequential]:
    if isinstance(module, nn.Sequential) and len(module) > 1:
        yield module
        return
    for child in module.children():
        yield from _chains(child)


def _in_pieces(layers: Sequence[nn.Module]) -> Layer:
    size = math.ceil(len(layers) / math.isqrt(len(layers)))
    pieces = [nn.Sequential(*layers[at : at + size]) for at in range(0, len(layers), size)]

    def forward(x: Tensor) -> Tensor:
        for piece in pieces:
            x = _kept_little(piece, x) if torch.is_grad_enabled() else piece(x)
        return x

    return forward


def _kept_little(piece: nn.Module, x: Tensor) -> Tensor:
    drawn = random.getstate(), np.random.get_state()  # noqa: NPY002 - user code draws from the legacy generator

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _again(piece, drawn)

    found: Tensor = checkpoint(piece, x, use_reentrant=False, context_fn=contexts)
    return found


@contextmanager
def _again(piece: nn.Module, drawn: tuple[object, object]) -> Iterator[None]:
    """A second pass draws what the first one drew, and leaves buffers and generators as it found them."""
    modules = [(module, module.named_buffers(recurse=False)) for module in piece.modules()]
    buffers = [(module, name, held, held.clone()) for module, own in modules for name, held in own]
    now = random.getstate(), np.random.get_state()  # noqa: NPY002
    _set_generators(*drawn)
    token = second_pass.set(True)
    try:
        yield
    finally:
        second_pass.reset(token)
        _set_generators(*now)
        for module, name, held, before in buffers:
            held.data.copy_(before)
            setattr(module, name, held)


def _set_generators(python: object, numpy: object) -> None:
    random.setstate(python)  # type: ignore[arg-type]
    np.random.set_state(numpy)  # type: ignore[arg-type]  # noqa: NPY002
