"""The optimizer over all parameter groups, with its memory by name. The arithmetic is in the parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from contracts.errors import UserCodeFailed
from contracts.request.section import Section
from runtime.engine.kinds import Memory, Mover
from runtime.engine.workload import Group


@dataclass(frozen=True)
class OptimizerGroup:
    """One group: its parameters and their names, its options, its memory, its factor on the learning rate."""

    names: Sequence[str]
    parameters: list[Tensor]
    options: Any
    memory: Memory
    rate: float


class Movement:
    """Moves every group once per attempt; `tensors` is all it remembers."""

    def __init__(self, mover: Mover, options: Section, named: Mapping[str, Tensor], groups: Sequence[Group]) -> None:
        names = {id(one): name for name, one in named.items()}
        self._mover = mover
        self._groups = [self._grouped(options, group, names) for group in groups if group.parameters]
        self.parameters = [one for group in self._groups for one in group.parameters]
        self.names = [name for group in self._groups for name in group.names]
        if len(set(self.names)) < len(self.names) or not self.names:
            cure = "Put every trained parameter into exactly one group."
            raise UserCodeFailed("the parameter groups are empty or share a parameter", cure=cure)

    def _grouped(self, options: Section, group: Group, names: Mapping[int, str]) -> OptimizerGroup:
        held = [one.detach() for one in group.parameters]
        own = {} if group.weight_decay is None else {"weight_decay": group.weight_decay}
        changed = options.model_copy(update=own)
        parameters: list[Tensor] = list(group.parameters)
        memory = self._mover.memory(changed, held)
        return OptimizerGroup([names[id(one)] for one in group.parameters], parameters, changed, memory, group.rate)

    def tensors(self) -> dict[str, Tensor]:
        """Its memory as `optimizer.NAME.PARAMETER`, or `optimizer.NAME.GROUP` for what a group shares."""
        found: dict[str, Tensor] = {}
        for number, group in enumerate(self._groups):
            found |= group.memory.named("optimizer", group.names, number)
        return found

    def gradients(self) -> tuple[list[int], list[Tensor]]:
        """The gradients at hand, and the places of their parameters."""
        found = [(place, one.grad) for place, one in enumerate(self.parameters) if one.grad is not None]
        return [place for place, _ in found], [gradient for _, gradient in found if gradient is not None]

    @torch.no_grad()
    def move(self, rate: float) -> None:
        """One update from the gradients at hand; a parameter without one stays as it is."""
        for group in self._groups:
            gradients = [one.grad for one in group.parameters]
            held = [gradient for gradient in gradients if gradient is not None]
            if len(held) == len(gradients):
                self._mover.update(group.options, group.parameters, held, group.memory, rate * group.rate)
            elif held:
                at = [index for index, gradient in enumerate(gradients) if gradient is not None]
                parameters = [group.parameters[index] for index in at]
                self._mover.update(group.options, parameters, held, group.memory.of(at), rate * group.rate)
