"""A running average of the trained weights, by which a model may be judged. Off unless a request asks for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from contracts.request.training import Ema


class Average:
    """Follows a model's parameters; buffers are the model's own."""

    def __init__(self, model: nn.Module, options: Ema) -> None:
        named = model.named_parameters() if options.decay else ()
        self._alive = {name: one for name, one in named if one.requires_grad}
        self._means = {name: one.detach().clone() for name, one in self._alive.items()}
        self._used = options.use

    @torch.no_grad()
    def follow(self, share: float) -> None:
        """Move the average towards the present weights: new = old + share * (weights - old)."""
        if self._means:
            torch._foreach_lerp_(list(self._means.values()), list(self._alive.values()), share)

    @contextmanager
    def standing_in(self) -> Iterator[None]:
        """Inside, the model has the average as its weights, if that is what models are judged by."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def tensors(self) -> dict[str, Tensor]:
        """The averaged weights as part of the state, under the names `ema.PARAMETER`."""
        return {f"ema.{name}": mean for name, mean in self._means.items()}

    def _swap(self) -> None:
        if self._used:
            for name, mean in self._means.items():
                self._alive[name].data, mean.data = mean.data, self._alive[name].data
