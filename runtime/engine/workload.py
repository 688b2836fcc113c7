"""What a user's own model and data look like to the engine; built-in models take the same form. No training here."""

from __future__ import annotations  # the reference shows annotations as they are written

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from pydantic import BaseModel, ValidationError
from torch import Tensor, nn

from contracts.errors import InvalidRequest, NotFound, Problem
from runtime.engine.facts import Facts
from runtime.engine.kinds import Batch, Memory, OptimizerPart
from runtime.engine.plain_kinds import StreamingMetric
from runtime.engine.ragged import Ragged
from runtime.engine.random_keys import Draw

__all__ = [
    "Batch",
    "Draw",
    "Facts",
    "Group",
    "Memory",
    "Metric",
    "Mover",
    "OptimizerPart",
    "Ragged",
    "StreamingMetric",
    "Workload",
]

Mover = OptimizerPart
"""The name under which workloads have imported it."""
Metric = Callable[[Tensor, Batch], float] | StreamingMetric[Any]
"""A function of all answers and columns of a split, or a metric that takes them batch by batch and keeps less."""
Rows = Mapping[str, np.ndarray | Ragged | Sequence[np.ndarray] | Sequence[bytes]]


@dataclass(frozen=True)
class Group:
    """Parameters that move alike: `rate` multiplies the learning rate, `weight_decay` replaces the request's."""

    parameters: Sequence[nn.Parameter]
    rate: float = 1.0
    weight_decay: float | None = None


class Workload(ABC):
    """A model, its loss, and everything else that training it needs.

    Batches are mappings of columns to tensors. Everything random is drawn from torch, numpy or `random` (they are
    reseeded at every step) or from the `draw` that is handed in; a generator of its own would not survive a resume.
    """

    class Options(BaseModel):
        """Options of the workload; replace it by a class of the same name."""

    ours: ClassVar[bool] = False

    @abstractmethod
    def build(self, o: Any, facts: Facts) -> nn.Module:
        """The model, freshly initialised."""

    @abstractmethod
    def loss(self, model: nn.Module, batch: Batch) -> Tensor | Mapping[str, Tensor]:
        """The loss of a batch as a scalar, or a mapping with `loss` and further scalars that are recorded."""

    def predict(self, model: nn.Module, batch: Batch) -> Tensor:
        """The model's answers for a batch, by which metrics judge; by default from the column `x`."""
        answers: Tensor = model(batch["x"])
        return answers

    def data(self, o: Any) -> Rows | Mapping[str, Rows] | None:
        """Rows as columns (or splits of columns); None when the request names another source.

        A column is an array with one entry per row, a `Ragged` or a list of arrays of any length, or a list of `bytes`.
        In a batch these last are all values of its rows, and `NAME.offsets` say where each row begins.
        """
        return None

    def augment(self, sample: dict[str, np.ndarray], draw: Draw) -> dict[str, np.ndarray]:
        """One training row, changed by chance from `draw` alone."""
        return sample

    def metrics(self) -> Mapping[str, Metric]:
        """Metrics of all answers of a split and its columns, by name; those where less is better end so.

        The ends are `loss`, `rmse`, `mae`, `perplexity` and `error`.
        """
        return {}

    def optimizer(self, o: Any) -> OptimizerPart | None:
        """An optimizer of one's own, all its memory declared by name; requests ask for it as `optimizer: {type: own}`.

        Its functions are handed the request's section `optimizer`, with the weight decay of the group they move.
        """
        return None

    def param_groups(self, model: nn.Module) -> Sequence[Group]:
        """Which parameters move alike; by default all."""
        return [Group([one for one in model.parameters() if one.requires_grad])]


_registered: dict[str, type[Workload]] = {}


def register(name: str, workload: type[Workload]) -> None:
    """Make a workload known under the name by which requests ask for it."""
    _registered[name] = workload


def find(name: str) -> type[Workload]:
    """The workload of that name; raises `NotFound`."""
    if name not in _registered:
        known = ", ".join(sorted(_registered)) or "none"
        cure = f"Add it with `swarm workload add FILE`. Known: {known}."
        raise NotFound(f"there is no workload {name!r}", cure=cure, path="model.workload")
    return _registered[name]


def options_of(workload: type[Workload], given: Mapping[str, object], path: str = "model.options") -> BaseModel:
    """The workload's options as its own model sees them; raises `InvalidRequest` with every problem."""
    try:
        return workload.Options.model_validate(dict(given))
    except ValidationError as error:
        problems = [
            Problem(".".join((path, *map(str, one["loc"]))), one["msg"], "See the workload's `Options`.")
            for one in error.errors(include_url=False)
        ]
        raise InvalidRequest(problems) from None
