"""The kinds of parts and what each kind must do. The parts themselves are files under `parts/`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from runtime.engine.facts import Facts
from runtime.engine.registry import Registry

Batch = Mapping[str, Tensor]
"""Columns of some rows, by name."""

Costs = Sequence[tuple[int, float]]
"""The control metric at each evaluated step, in order, turned so that less is better."""

Scale = Callable[[int], float]
"""The share of the learning rate at a step."""


@dataclass(frozen=True)
class Memory:
    """What an optimizer remembers by name: one tensor for each parameter, and tensors that the group shares."""

    each: Mapping[str, list[Tensor]] = field(default_factory=dict)
    shared: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Mover:
    """An optimizer as two functions: the memory it starts with, and one move of parameters and memory in place."""

    memory: Callable[[Any, Sequence[Tensor]], Memory]
    update: Callable[[Any, list[Tensor], list[Tensor], Memory, float], None]


models: Registry[Callable[[Any, Facts], nn.Module]] = Registry("runtime.engine.parts.models")
losses: Registry[Callable[[Any, Facts], Callable[[Tensor, Batch], Tensor]]] = Registry("runtime.engine.parts.losses")
optimizers: Registry[Mover] = Registry("runtime.engine.parts.optimizers")
schedules: Registry[Callable[[Any, int, Costs], Scale]] = Registry("runtime.engine.parts.schedules")
metrics: Registry[Callable[[Tensor, Batch], float]] = Registry("runtime.engine.parts.metrics")
