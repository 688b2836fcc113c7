"""Less memory for more time: of a chain of layers only what lies between its pieces is kept for the backward pass."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from contracts.errors import InvalidRequest, Problem

Layer = Callable[[Tensor], Tensor]

again: ContextVar[bool] = ContextVar("again", default=False)
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
    token = again.set(True)
    try:
        yield
    finally:
        again.reset(token)
        _set_generators(*now)
        for module, name, held, before in buffers:
            held.data.copy_(before)
            setattr(module, name, held)


def _set_generators(python: object, numpy: object) -> None:
    random.setstate(python)  # type: ignore[arg-type]
    np.random.set_state(numpy)  # type: ignore[arg-type]  # noqa: NPY002
