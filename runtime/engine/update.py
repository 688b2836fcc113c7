"""From gradients to new weights: the request's filters, the optimizer over all groups, the running average.

The arithmetic of each is in the parts; here is what they remember, by name.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from contracts.errors import UserCodeFailed
from contracts.request.optimizer import ParameterGroup
from contracts.request.section import Section
from contracts.request.training import Ema
from runtime.engine import kinds
from runtime.engine.kinds import Memory, OptimizerPart
from runtime.engine.state import picked
from runtime.engine.workload import Group


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


@dataclass(frozen=True)
class OptimizerGroup:
    """One group: its parameters and their names, its options, its memory, its factor on the learning rate."""

    names: Sequence[str]
    parameters: list[Tensor]
    options: Any
    memory: Memory
    rate: float


class OptimizerState:
    """Moves every group once per attempt; `tensors` is all it remembers."""

    def __init__(
        self, mover: OptimizerPart, options: Section, named: Mapping[str, Tensor], groups: Sequence[Group]
    ) -> None:
        names = {id(one): name for name, one in named.items()}
        self._mover = mover
        self._groups: list[OptimizerGroup] = []
        for group in groups:
            if group.parameters:
                own = {} if group.weight_decay is None else {"weight_decay": group.weight_decay}
                changed = options.model_copy(update=own)
                memory = mover.memory(changed, [parameter.detach() for parameter in group.parameters])
                owners = [names[id(parameter)] for parameter in group.parameters]
                self._groups.append(OptimizerGroup(owners, list(group.parameters), changed, memory, group.rate))
        self.parameters = [one for group in self._groups for one in group.parameters]
        self.names = [name for group in self._groups for name in group.names]
        if len(set(self.names)) < len(self.names) or not self.names:
            cure = "Put every trained parameter into exactly one group."
            raise UserCodeFailed("the parameter groups are empty or share a parameter", cure=cure)

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

    def adopt(self, held: Sequence[int], gradients: Sequence[Tensor]) -> None:
        """Put these gradients in the place of those at hand; parameters at other places have none afterwards."""
        for parameter in self.parameters:
            parameter.grad = None
        for place, gradient in zip(held, gradients, strict=True):
            self.parameters[place].grad = gradient

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


def grouped(groups: Sequence[Group], rules: Sequence[ParameterGroup], model: nn.Module) -> list[Group]:
    """The groups without what the rules take out of them, each followed by what was taken, rule by rule.

    What a rule takes keeps its group's rate times the rule's own, and its group's decay unless the rule has one.
    """
    names = {id(one): name for name, one in model.named_parameters()}
    takers = dict[str, int]()
    for index, rule in enumerate(rules):
        for name in picked(rule.parameters, names.values(), f"optimizer.groups.{index}.parameters"):
            takers.setdefault(name, index)
    return [part for group in groups for part in _cut(group, rules, names, takers)]


def _cut(
    group: Group, rules: Sequence[ParameterGroup], names: dict[int, str], takers: dict[str, int]
) -> Iterator[Group]:
    taken = [takers.get(names.get(id(one), "")) for one in group.parameters]
    rest = [one for one, taker in zip(group.parameters, taken, strict=True) if taker is None]
    yield Group(rest, group.rate, group.weight_decay)
    for index, rule in enumerate(rules):
        own = [one for one, taker in zip(group.parameters, taken, strict=True) if taker == index]
        decay = group.weight_decay if rule.weight_decay is None else rule.weight_decay
        yield Group(own, group.rate * rule.rate, decay)


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
