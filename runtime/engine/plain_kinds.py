"""The kinds of parts that need no torch, so that processes without it can ask what there is: metrics."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from contracts.request.section import Task
from contracts.request.training import less_is_better
from runtime.engine.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

Seen = TypeVar("Seen")


class StreamingMetric(ABC, Generic[Seen]):
    """One way to judge answers, as a fold over the batches of a split in the order of its rows.

    A metric keeps nothing itself: what it has seen of an evaluation is handed in and returned. Answers and columns are
    on the CPU. What it keeps of a batch is bounded, or its docstring says what it keeps of every row and why.
    """

    task: ClassVar[Task]
    lower_is_better: ClassVar[bool] = False

    @abstractmethod
    def begin(self) -> Seen:
        """What has been seen before the first batch."""

    @abstractmethod
    def take(self, seen: Seen, answers: Tensor, batch: Mapping[str, Tensor]) -> Seen:
        """What has been seen after one more batch; `seen` is not used again."""

    @abstractmethod
    def value(self, seen: Seen) -> float:
        """The value over all rows seen, of which there is at least one."""

    def over(self, answers: Tensor, batch: Mapping[str, Tensor]) -> float:
        """The value over rows that are all at hand."""
        return self.value(self.take(self.begin(), answers, batch))


metrics: Registry[StreamingMetric[Any]] = Registry("runtime.engine.parts.metrics")

Part = TypeVar("Part", bound=type[StreamingMetric[Any]])


def metric(name: str) -> Callable[[Part], Part]:
    """Decorator: registers a metric under the name by which requests ask for it.

    Which way is better must show in the name, because a log tells a workload's own metrics by their names alone.
    """

    def register(part: Part) -> Part:
        if less_is_better(name) != part.lower_is_better:
            raise ValueError(f"{name!r} reads as if {'less' if less_is_better(name) else 'more'} were better")
        metrics.part(name)(part())
        return part

    return register


def total(terms: Iterable[float]) -> float:
    """The correctly rounded sum; NaN when infinities of both signs or NaN are among the terms or it is too large."""
    try:
        return math.fsum(terms)
    except (ValueError, OverflowError):
        return math.nan


@dataclass(frozen=True, slots=True)
class ExactSum:
    """The sum of all terms so far without any rounding, as a few floats of which none overlaps another.

    `value` has the bits of `total` over all terms at once, however they were divided into batches.
    """

    pieces: tuple[float, ...] = ()

    def plus(self, terms: Iterable[float]) -> ExactSum:
        """The sum with more terms."""
        rest = [*self.pieces, *terms]
        pieces: list[float] = []
        # What correct rounding leaves of an exact sum is a sum of floats again, and smaller by 53 bits.
        while rounded := total(rest):
            pieces.append(rounded)
            if not math.isfinite(rounded):
                break
            rest.append(-rounded)
        return ExactSum(tuple(pieces))

    @property
    def value(self) -> float:
        """The sum, correctly rounded."""
        return total(self.pieces)
