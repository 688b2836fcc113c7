"""Levers: what a decision may change of a plan that is under way. No torch is imported here."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

from pydantic import JsonValue

from contracts.errors import InvalidInput
from runtime.engine.plain_kinds import Lever, SegmentPlan, lever


def _positive(value: object) -> float:
    """A finite number above 0; raises `ValueError` for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ValueError
    return value


@lever("learning_rate")
@dataclass(frozen=True)
class RateFactor(Lever):
    """Multiplies the learning rate, on top of what earlier decisions multiplied it by."""

    value: float
    values: ClassVar[str] = "a factor above 0"

    @classmethod
    def read(cls, value: object) -> Self:
        return cls(_positive(value))

    def in_request(self, request: Mapping[str, Any]) -> Mapping[str, JsonValue]:
        return {"optimizer.learning_rate": request["optimizer"]["learning_rate"] * self.value}

    def apply(self, plan: SegmentPlan) -> SegmentPlan:
        return replace(plan, rate_factors=(*plan.rate_factors, self.value))

    def sentence(self) -> str:
        return f"{self.value:g} of the learning rate"


@lever("grad_clip")
@dataclass(frozen=True)
class ClipNorm(Lever):
    """Clips gradients at a norm, in place of what held before."""

    value: float
    values: ClassVar[str] = "a norm above 0, or null to leave it as it is"

    @classmethod
    def read(cls, value: object) -> Self | None:
        return None if value is None else cls(_positive(value))

    def in_request(self, request: Mapping[str, Any]) -> Mapping[str, JsonValue]:
        return {"training.grad_clip": self.value}

    def apply(self, plan: SegmentPlan) -> SegmentPlan:
        return replace(plan, grad_clip=self.value)

    def sentence(self) -> str:
        return f"gradients clipped at {self.value:g}"


@lever("stop")
@dataclass(frozen=True)
class Stop(Lever):
    """Ends the training where the segment begins."""

    value: bool = True
    values: ClassVar[str] = "true, or false to go on"
    ends: ClassVar[bool] = True

    @classmethod
    def read(cls, value: object) -> Self | None:
        if value is True:
            return cls()
        if value is False:
            return None
        raise ValueError

    def apply(self, plan: SegmentPlan) -> SegmentPlan:
        return replace(plan, last_step=min(plan.last_step, plan.begins))

    def sentence(self) -> str:
        return "the end of the training"


MOST_RUNS, MOST_ROWS = 256, 4096
"""Runs of rows that one decision may leave out, and rows in them."""


@lever("skip_rows")
@dataclass(frozen=True)
class SkipRows(Lever):
    """Leaves training rows out from here on, beside those that were left out before.

    They keep their places in the order and weigh nothing, as in a fork without them.
    """

    value: tuple[tuple[int, int], ...]
    values: ClassVar[str] = f"up to {MOST_RUNS} runs [first, last] of training rows, by their places from 1"

    @classmethod
    def read(cls, value: object) -> Self:
        if not isinstance(value, list | tuple) or not 1 <= len(value) <= MOST_RUNS:
            raise ValueError
        runs = tuple((_place(first), _place(last)) for first, last in value)
        rows = [last - first + 1 for first, last in runs]
        if min(rows) < 1 or sum(rows) > MOST_ROWS:
            raise ValueError
        return cls(runs)

    @classmethod
    def of(cls, rows: Iterable[int]) -> Self:
        """That of some rows, by their places from 1."""
        runs: list[tuple[int, int]] = []
        for row in sorted(set(rows)):
            first = runs.pop()[0] if runs and runs[-1][1] == row - 1 else row
            runs.append((first, row))
        return cls.read(runs)

    def apply(self, plan: SegmentPlan) -> SegmentPlan:
        return replace(plan, without=(*plan.without, *self.value))

    def sentence(self) -> str:
        named = [f"{first}" if first == last else f"{first}-{last}" for first, last in self.value]
        return f"training row{'s' if len(named) > 1 or '-' in named[0] else ''} {', '.join(named)[:200]} left out"


def _place(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 2**53:
        raise ValueError
    return value


MOST_STEPS = 1_000_000_000


@lever("warmup")
@dataclass(frozen=True)
class WarmUp(Lever):
    """Lets the learning rate climb again, evenly over so many steps, on top of schedule and earlier decisions."""

    value: int
    values: ClassVar[str] = f"a number of steps from 1 to {MOST_STEPS}"

    @classmethod
    def read(cls, value: object) -> Self:
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MOST_STEPS:
            raise ValueError
        return cls(value)

    def in_request(self, request: Mapping[str, Any]) -> Mapping[str, JsonValue]:
        return {"schedule.warmup_steps": self.value}

    def apply(self, plan: SegmentPlan) -> SegmentPlan:
        return replace(plan, warmups=(*plan.warmups, (plan.begins, self.value)))

    def sentence(self) -> str:
        return f"the learning rate warmed up again over {self.value} steps"


MOST_PARTS = 10_000
"""The most parts that a step may have, as `training.accumulate` may say."""


@lever("halve_batch")
@dataclass(frozen=True)
class CutBatch(Lever):
    """Takes each batch of the request in so many parts of one size, in place of what held before.

    A step has the rows that it had and is one update. Evaluations go in batches of the size of a part, so that they
    take no more memory than a step; with a value of 1 that is all that changes.
    """

    value: int
    values: ClassVar[str] = f"a number of parts from 1 to {MOST_PARTS} that divides training.batch_size"
    SIZES: ClassVar = ("batch", "accumulate", "evaluation_batch")
    """The resolved values that it changes."""

    @classmethod
    def read(cls, value: object) -> Self:
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MOST_PARTS:
            raise ValueError
        return cls(value)

    @classmethod
    def below(cls, request: Mapping[str, Any], rows: int, evaluated: int = 0) -> Self | None:
        """The next one where `rows` at once are too many: half of them or, where that does not divide, fewer.

        Where a whole batch cannot be cut, and evaluations take as many as `evaluated` rows, these alone change. None
        when nothing is left.
        """
        batch = request.get("training", {}).get("batch_size", 0)
        parts = range(-(-2 * batch // rows), min(batch, MOST_PARTS) + 1)
        smaller = next((found for found in map(cls, parts) if not found.misfit(request)), None)
        return cls(1) if smaller is None and evaluated > rows == batch else smaller

    def sizes(self, batch: int, accumulate: int, evaluated: int) -> tuple[int, int, int]:
        """Rows and number of the parts of a step, and rows that are judged at once, where these were resolved."""
        if batch % self.value:
            message = f"a batch of {batch} rows cannot be taken in {self.value} parts of one size"
            raise InvalidInput(message, cure="Give a number that divides it.", path=self.name)
        rows = batch // self.value
        return rows, accumulate * self.value, min(evaluated, rows)

    def misfit(self, request: Mapping[str, Any], *, counted: bool = True) -> str:
        training = request.get("training", {})
        batch, parts = training.get("batch_size", 0), self.value * training.get("accumulate", 1)
        if not batch or batch % self.value:
            return f"a batch of {batch} rows cannot be taken in {self.value} parts of one size"
        if batch == self.value > 1 and self.whole(request):
            return f"parts of one row are too small: {self.whole(request)}"
        return "" if parts <= MOST_PARTS else f"a step would have {parts} parts, and {MOST_PARTS} is the most"

    @staticmethod
    def whole(request: Mapping[str, Any]) -> str:
        """What in a training looks at a batch as a whole, and so at each part of a cut one; empty for nothing.

        What a workload does is not known.
        """
        if request.get("loss", {}).get("type") in ("contrastive", "triplet"):
            return "the loss compares the rows of a batch with each other"
        normed = request.get("model", {}).get("architecture") in ("cnn", "resnet")
        return "batch normalisation takes its statistics over the rows of a batch" if normed else ""

    def in_request(self, request: Mapping[str, Any]) -> Mapping[str, JsonValue]:
        training = request["training"]
        batch, accumulate = training["batch_size"] // self.value, training.get("accumulate", 1) * self.value
        return {"training.batch_size": batch, "training.accumulate": accumulate} if self.value > 1 else {}

    def apply(self, plan: SegmentPlan) -> SegmentPlan:
        return replace(plan, cut=self.value)

    def sentence(self) -> str:
        if self.value == 1:
            return "evaluations in batches as large as a step's"
        return f"each batch in {self.value} parts, and evaluations in batches of that size"


def _with_option(plan: SegmentPlan, path: str, value: float | str) -> SegmentPlan:
    return replace(plan, options=(*((name, was) for name, was in plan.options if name != path), (path, value)))


@lever("weight_decay")
@dataclass(frozen=True)
class WeightDecay(Lever):
    """Sets the optimizer's weight decay, in place of the request's; groups with a decay of their own keep it."""

    value: float
    values: ClassVar[str] = "a number from 0 to 10"

    @classmethod
    def read(cls, value: object) -> Self:
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 10:
            raise ValueError
        return cls(value)

    def misfit(self, request: Mapping[str, Any], *, counted: bool = True) -> str:
        known = "weight_decay" in request.get("optimizer", {})
        return "" if known else "the optimizer has no weight decay"

    def in_request(self, request: Mapping[str, Any]) -> Mapping[str, JsonValue]:
        return {"optimizer.weight_decay": self.value}

    def apply(self, plan: SegmentPlan) -> SegmentPlan:
        return _with_option(plan, "optimizer.weight_decay", self.value)

    def sentence(self) -> str:
        return f"a weight decay of {self.value:g}"


@lever("dropout")
@dataclass(frozen=True)
class DropoutShare(Lever):
    """Sets the share of units that the model drops, in place of the request's.

    A model that was built to drop none has no place for it.
    """

    value: float
    values: ClassVar[str] = "a share above 0, of 0.9 at most"

    @classmethod
    def read(cls, value: object) -> Self:
        if _positive(value) > 0.9:
            raise ValueError
        return cls(_positive(value))

    def misfit(self, request: Mapping[str, Any], *, counted: bool = True) -> str:
        return "" if request.get("model", {}).get("dropout") else "the model was built without dropout"

    def in_request(self, request: Mapping[str, Any]) -> Mapping[str, JsonValue]:
        return {"model.dropout": self.value}

    def apply(self, plan: SegmentPlan) -> SegmentPlan:
        return _with_option(plan, "model.dropout", self.value)

    def sentence(self) -> str:
        return f"a dropout of {self.value:g}"


@lever("class_weights")
@dataclass(frozen=True)
class BalanceClasses(Lever):
    """Lets rare classes weigh as much as common ones in training; evaluations stay as the request has them."""

    value: str = "balanced"
    values: ClassVar[str] = '"balanced"'

    @classmethod
    def read(cls, value: object) -> Self:
        if value != "balanced":
            raise ValueError
        return cls()

    def misfit(self, request: Mapping[str, Any], *, counted: bool = True) -> str:
        loss, model = request.get("loss", {}).get("type"), request.get("model", {}).get("architecture")
        if loss not in ("auto", "cross_entropy", "focal") or model == "workload":
            return "the loss has no weights of classes"
        return "" if counted else "how many rows each class has was not counted when the data were prepared"

    def in_request(self, request: Mapping[str, Any]) -> Mapping[str, JsonValue]:
        if request["loss"]["type"] == "auto":
            return {"loss": {"type": "cross_entropy", "class_weights": self.value}}
        return {"loss.class_weights": self.value}

    def apply(self, plan: SegmentPlan) -> SegmentPlan:
        return _with_option(plan, "loss.class_weights", self.value)

    def sentence(self) -> str:
        return "classes balanced by their weights"
