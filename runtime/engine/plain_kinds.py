"""The kinds of parts that processes without torch ask for too, and which import none: metrics and levers."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, TypeVar

from pydantic import JsonValue

from contracts.errors import InvalidInput, NewerThanCode
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


@dataclass(frozen=True, slots=True)
class SegmentPlan:
    """What the decisions before a segment and at its beginning amount to, beside what the request says itself."""

    begins: int
    last_step: int
    """Where the training ends unless the control metric ends it sooner."""
    grad_clip: float | None
    rate_factors: tuple[float, ...] = ()
    """What the learning rate is multiplied by, one after another."""
    warmups: tuple[tuple[int, int], ...] = ()
    """After which steps the learning rate climbs again from near 0, and for how many steps."""
    without: tuple[tuple[int, int], ...] = ()
    """Training rows that are left out, by the places from 1 of the first and the last of each run."""
    options: tuple[tuple[str, JsonValue], ...] = ()
    """Values of the request that hold in place of its own, by dotted path."""
    cut: int = 0
    """In how many parts of one size each batch is taken, and evaluations in batches as large; 0 where none is cut."""


class Lever(ABC):
    """One way to change a plan, with its value: a frozen value. Logs keep it as `{name: value}`."""

    name: ClassVar[str]
    values: ClassVar[str]
    """What its value has to be, in words."""
    ends: ClassVar[bool] = False
    """Whether training ends where it takes effect, so that nothing is left to be judged."""
    value: bool | float | str | tuple[tuple[int, int], ...]

    @property
    def recorded(self) -> JsonValue:
        """Its value as logs have it."""
        return [list(run) for run in self.value] if isinstance(self.value, tuple) else self.value

    def misfit(self, request: Mapping[str, Any], *, counted: bool = True) -> str:
        """Why it can change nothing in a training that was requested so; empty when it can.

        `counted` says whether it is known of the data how many rows each class has.
        """
        return ""

    def in_request(self, request: Mapping[str, Any]) -> Mapping[str, JsonValue]:
        """The values, by dotted path, with which a request has it from the beginning; empty where none can say it."""
        return {}

    @classmethod
    @abstractmethod
    def read(cls, value: object) -> Self | None:
        """The lever with a recorded value, None for one that changes nothing; raises `ValueError` for a wrong one."""

    @abstractmethod
    def apply(self, plan: SegmentPlan) -> SegmentPlan:
        """The plan of the segment that begins with this change, after it."""

    @abstractmethod
    def sentence(self) -> str:
        """What it does, as part of a sentence."""


levers: Registry[type[Lever]] = Registry("runtime.engine.parts.levers")

Pulled = TypeVar("Pulled", bound=type[Lever])


def lever(name: str) -> Callable[[Pulled], Pulled]:
    """Decorator: registers a lever under the name that logs have for it."""

    def register(part: Pulled) -> Pulled:
        part.name = name
        levers.part(name)(part)
        return part

    return register


def read_levers(changes: Mapping[str, object]) -> tuple[Lever, ...]:
    """The levers of a recorded decision, in its order; those that leave the plan as it is are left out.

    Raises `NewerThanCode` for a lever that there is not, and `InvalidInput` for a value that it cannot have.
    """
    found = []
    for name, value in changes.items():
        if name not in levers.all:
            message = f"there is no lever {name!r} in this version, which has {', '.join(sorted(levers.all))}"
            raise NewerThanCode(message, cure="Install the version that made the change.")
        try:
            found.append(levers.of(name).read(value))
        except ValueError:
            message = f"the lever {name!r} cannot be {value!r}"[:200]
            raise InvalidInput(message, cure=f"Give {levers.of(name).values}.", path=name) from None
    return tuple(one for one in found if one is not None)
