"""The kinds of parts and what each kind must do. The parts themselves are under `parts/`, a file for each kind."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from contracts.errors import InvalidRequest, Problem
from contracts.request.section import Section
from runtime.engine.draws import Draws
from runtime.engine.evaluations import EvaluationsView
from runtime.engine.facts import Facts
from runtime.engine.registry import Registry

Batch = Mapping[str, Tensor]
"""Columns of some rows, by name."""

Loss = Callable[[Tensor, Batch], Tensor]
"""The loss of answers, given a batch whose `y` is what they should be."""

Scale = Callable[[int], float]
"""The share of the learning rate at a step."""


@dataclass(frozen=True)
class Memory:
    """What an optimizer or a filter remembers by name: one tensor for each parameter, and tensors that all share."""

    each: Mapping[str, list[Tensor]] = field(default_factory=dict)
    shared: Mapping[str, Tensor] = field(default_factory=dict)

    def of(self, at: Sequence[int]) -> Memory:
        """The memory of some parameters, with all that is shared."""
        each = {name: [tensors[index] for index in at] for name, tensors in self.each.items()}
        return Memory(each, self.shared)

    def named(self, kind: str, owners: Sequence[str], group: int) -> dict[str, Tensor]:
        """Every tensor as `KIND.NAME.PARAMETER`, or `KIND.NAME.GROUP` for what is shared."""
        found = {f"{kind}.{name}.{group}": one for name, one in self.shared.items()}
        for name, tensors in self.each.items():
            found |= {f"{kind}.{name}.{owner}": one for owner, one in zip(owners, tensors, strict=True)}
        return found


@dataclass(frozen=True)
class OptimizerPart:
    """An optimizer as two functions: the memory it starts with, and one move of parameters and memory in place."""

    memory: Callable[[Any, Sequence[Tensor]], Memory]
    update: Callable[[Any, list[Tensor], list[Tensor], Memory, float], None]


@dataclass(frozen=True)
class Filter:
    """A change of gradients as two functions: the memory it starts with, and one pass over gradients in place."""

    memory: Callable[[Any, Sequence[Tensor]], Memory]
    apply: Callable[[Any, list[Tensor], Memory], None]


class Spread(NamedTuple):
    """What is usual in the training split: one mean and one deviation for each feature or channel of a row."""

    mean: Tensor
    scale: Tensor


class LayerFactory(ABC):
    """What a model's linear and convolution layers are built by. Their weights are drawn afterwards, by their names."""

    @abstractmethod
    def linear(self, inputs: int, outputs: int) -> nn.Module:
        """From so many numbers to so many, with a bias."""

    @abstractmethod
    def convolution(self, inputs: int, outputs: int, size: int, *, stride: int = 1) -> nn.Module:
        """Over planes, with an odd kernel of `size` x `size` and no bias; with stride 1 the plane stays as large."""


layers: Registry[LayerFactory] = Registry("runtime.engine.parts.layers")
models: Registry[Callable[[Any, Facts, LayerFactory], nn.Module]] = Registry("runtime.engine.parts.models")
losses: Registry[Callable[[Any, Facts], Loss]] = Registry("runtime.engine.parts.losses")
optimizers: Registry[OptimizerPart] = Registry("runtime.engine.parts.optimizers")
filters: Registry[Filter] = Registry("runtime.engine.parts.gradients")
augmentations: Registry[Callable[[Any, Tensor, Draws, Spread], Tensor]] = Registry("runtime.engine.parts.augment")
schedules: Registry[Callable[[Any, int, EvaluationsView], Scale]] = Registry("runtime.engine.parts.schedules")


class TrainingTask:
    """The facts that model and loss are made from, and what answers are held against; this one takes both as they are.

    `loss` is the one that an `auto` stands for; `needs` are the columns that there must be.
    """

    loss: ClassVar[Section]
    needs: ClassVar[tuple[str, ...]] = ("x", "y")

    def __init__(self, facts: Facts, loss: Section) -> None:
        if missing := [name for name in self.needs if name not in facts.columns]:
            message = f"a built-in model needs the column {missing[0]!r}, and there are {', '.join(facts.columns)}"
            raise InvalidRequest([Problem("model.architecture", message, "Train this data with a workload.")])
        if -1 in facts.shape:
            message = "a built-in model needs rows of one shape, and those of `x` have any length"
            raise InvalidRequest([Problem("model.architecture", message, "Train this data with a workload.")])
        self.facts = facts

    def loss_inputs(self, answers: Tensor, batch: Batch) -> tuple[Tensor, Batch]:
        """Answers and a batch whose `y` is what they should be, as losses take them."""
        return answers, batch

    def metric_inputs(self, answers: Tensor, batch: Batch) -> Tensor:
        """What metrics need to know of answers, one line per row; for large answers much less than all of them."""
        return answers


tasks: Registry[type[TrainingTask]] = Registry("runtime.engine.parts.tasks")


class DeviceConstant:
    """A float32 constant, copied once to each device that asks for it. It is no state: facts and options give it."""

    def __init__(self, values: Tensor) -> None:
        self._on = {torch.device("cpu"): values}

    def beside(self, tensor: Tensor) -> Tensor:
        """The constant on the device of a tensor."""
        found = self._on.get(tensor.device)
        if found is None:
            found = self._on[tensor.device] = next(iter(self._on.values())).to(tensor.device)
        return found
