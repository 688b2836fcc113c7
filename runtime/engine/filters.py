"""The request's gradient filters one after another, with their memory by name. The arithmetic is in the parts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from contracts.request.section import Section
from runtime.engine import kinds


class Filters:
    """Changes gradients in place before they are clipped; `tensors` is all it remembers."""

    def __init__(self, options: Sequence[Section], parameters: Sequence[Tensor], names: Sequence[str]) -> None:
        self._names = names
        held = [one.detach() for one in parameters]
        parts = [(kinds.filters.of(one), one) for one in options]
        self._passes = [(part.apply, one, part.memory(one, held)) for part, one in parts]

    @torch.no_grad()
    def apply(self, gradients: list[Tensor], held: Sequence[int]) -> None:
        """One pass of each; `held` are the places of the parameters that have a gradient."""
        for change, options, memory in self._passes:
            change(options, gradients, memory.of(held))

    def tensors(self) -> dict[str, Tensor]:
        """The memory as `gradients.POSITION.NAME.PARAMETER`."""
        found: dict[str, Tensor] = {}
        for position, (_, _, memory) in enumerate(self._passes):
            found |= memory.named(f"gradients.{position}", self._names, 0)
        return found
