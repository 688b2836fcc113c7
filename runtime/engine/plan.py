"""What will happen at each step: the request, its resolved numbers, and the decisions so far. Pure arithmetic."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple, Self

from pydantic import JsonValue

from contracts.errors import InvalidInput
from contracts.request import Request
from contracts.request.reading import put
from contracts.request.training import is_rechecked
from runtime.engine.evaluations import NOTHING_EVALUATED, EvaluationsView
from runtime.engine.parts.levers import CutBatch
from runtime.engine.parts.schedules import course
from runtime.engine.plain_kinds import Lever, SegmentPlan, read_levers


@dataclass(frozen=True)
class ResolvedValues:
    """Every `auto` as a number, recorded by the first claim; all later attempts and audits take these.

    `initial` is the root over the tensors of `model.init`, where there are any. `world_size` is how many processes
    train the session together, and `rank` which of them has this plan: rank 0 alone speaks for all. `sensors` is 1
    where windows tell what sensors saw; sessions from before there were any have 0, and go on so. `planned` are the
    steps of schedules where `limits` end the training sooner, else 0.
    """

    rows: int
    parameters: int
    batch: int
    accumulate: int
    steps_total: int
    window: int
    every_steps: int
    every_epochs: int
    evaluation_batch: int
    threads: int
    device: str
    precision: str
    profile: str
    seed: int
    initial: str = ""
    rank: int = 0
    world_size: int = 1
    sensors: int = 0
    planned: int = 0

    def as_json(self) -> dict[str, int | str]:
        """Plain data; `ResolvedValues(**data)` gives it back. What an older plan would not say is left out."""
        return {name: value for name, value in asdict(self).items() if _UNSAID.get(name) != value}


_UNSAID: Mapping[str, int] = {"rank": 0, "world_size": 1, "sensors": 0, "planned": 0}


@dataclass(frozen=True)
class Change:
    """A decision whose segment begins at `step`; a segment keeps what those before it decided."""

    step: int
    levers: tuple[Lever, ...] = ()

    @classmethod
    def read(cls, step: int, changes: Mapping[str, object]) -> Self:
        """The decision whose `changes` an event tells; raises as `read_levers` does."""
        return cls(step, read_levers(changes))

    @classmethod
    def from_json(cls, raw: Mapping[str, object]) -> Self:
        """A decision from its JSON form, the step beside the levers."""
        match raw:
            case {"step": int(step), **changes}:
                return cls.read(step, changes)
        raise InvalidInput(f"{raw!r} names no step at which it changes a plan"[:200], cure="Give `step`.")

    def as_json(self) -> dict[str, JsonValue]:
        """Plain data; `Change.from_json` gives the same decision back."""
        return {"step": self.step} | {lever.name: lever.recorded for lever in self.levers}


class StepSettings(NamedTuple):
    """What is in force at one step."""

    learning_rate: float
    grad_clip: float | None
    averaging: float


@dataclass(frozen=True)
class Plan:
    """Genesis and decisions: with the step, everything that is not state follows from it.

    A plan that `begins` at a later step goes on from given state. Training rows `without` which it goes on, by the
    places from 1 of the first and the last of each run, stand in the order and are not seen.
    """

    request: Request
    resolved: ResolvedValues
    changes: tuple[Change, ...] = ()
    begins: int = 0
    without: tuple[tuple[int, int], ...] = ()

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Plan:
        """A plan from its JSON form."""
        changes = tuple(Change.from_json(one) for one in raw["changes"])
        request, resolved = Request.model_validate(raw["request"]), ResolvedValues(**raw["resolved"])
        without = tuple((first, last) for first, last in raw.get("without", ()))
        return cls(request, resolved, changes, raw.get("begins", 0), without)

    def as_json(self) -> dict[str, object]:
        """Plain data; `Plan.from_json` gives the same plan back."""
        changes = [one.as_json() for one in self.changes]
        return {
            "request": self.request.resolved(),
            "resolved": self.resolved.as_json(),
            "changes": changes,
            "begins": self.begins,
            "without": [list(one) for one in self.without],
        }

    def segment_at(self, step: int) -> int:
        """The segment, from 1, of the attempt that follows `step` finished ones on the path."""
        return max((number for number, one in enumerate(self.changes, 2) if one.step <= step), default=1)

    def after(self, change: Change) -> Plan:
        """A plan with one more decision; the decisions before it stay as they are."""
        return replace(self, changes=(*self.changes, change))

    @cached_property
    def segments(self) -> tuple[SegmentPlan, ...]:
        """What is in force in each segment: that of the one before it, changed by every lever of its decision."""
        plans = [SegmentPlan(self.begins, self.resolved.steps_total, self.request.training.grad_clip)]
        for change in self.changes:
            plan = replace(plans[-1], begins=change.step)
            for lever in change.levers:
                plan = lever.apply(plan)
            plans.append(plan)
        return tuple(plans)

    @cached_property
    def _values(self) -> tuple[ResolvedValues, ...]:
        whole = [getattr(self.resolved, name) for name in CutBatch.SIZES]
        cuts = (CutBatch(one.cut).sizes(*whole) if one.cut else whole for one in self.segments)
        return tuple(replace(self.resolved, **dict(zip(CutBatch.SIZES, cut, strict=True))) for cut in cuts)

    def resolved_at(self, step: int) -> ResolvedValues:
        """The resolved values as decisions have them for the attempt that follows `step` finished ones.

        Rows per step never change: `batch` and `accumulate` say in which parts they are taken.
        """
        return self._values[self.segment_at(step) - 1]

    @cached_property
    def requests(self) -> tuple[Request, ...]:
        """The request as decisions have it in each segment.

        A loss that the request leaves to the task is written out where a decision gives it weights.
        """
        return tuple(self._with_options(segment.options) for segment in self.segments)

    def _with_options(self, options: Iterable[tuple[str, JsonValue]]) -> Request:
        if not options:
            return self.request
        raw: Any = self.request.resolved()
        for path, value in options:
            if path.startswith("loss.") and raw["loss"]["type"] == "auto":
                raw["loss"] = {"type": "cross_entropy"}
            raw = put(raw, path.split("."), value)
        return Request.model_validate(raw)

    def request_at(self, step: int) -> Request:
        """The request as decisions have it for the attempt that follows `step` finished ones."""
        return self.requests[self.segment_at(step) - 1]

    def without_at(self, step: int) -> tuple[tuple[int, int], ...]:
        """The runs of training rows that the attempt after `step` finished ones does not see."""
        return (*self.without, *self.segments[self.segment_at(step) - 1].without)

    @property
    def last_step(self) -> int:
        """Where training ends unless the control metric ends it sooner."""
        return self.segments[-1].last_step

    def course(self, seen: EvaluationsView = NOTHING_EVALUATED) -> Callable[[int], StepSettings]:
        """The settings of every attempt, as the evaluations so far have it; a step sees none after it."""
        scale = course(self.request.schedule, self.resolved.planned or self.resolved.steps_total, seen)

        def settings(step: int) -> StepSettings:
            segment = self.segments[self.segment_at(step) - 1]
            rate = self.request.optimizer.learning_rate * scale(step)
            for factor in segment.rate_factors:
                rate *= factor
            for begins, steps in segment.warmups:
                rate *= min(1.0, (step - begins + 1) / steps)
            # How much of the average of weights is new: a tenth at first, then less and less down to what is asked.
            averaging = 1.0 - min(self.request.training.ema.decay, (step + 1) / (step + 10))
            return StepSettings(rate, segment.grad_clip, averaging)

        return settings

    def at(self, step: int, seen: EvaluationsView = NOTHING_EVALUATED) -> StepSettings:
        """Learning rate and clipping of the attempt that follows `step` finished ones."""
        return self.course(seen)(step)

    def epoch_at(self, step: int) -> float:
        """How many times the rows have been seen after `step` steps."""
        return step * self._taken / self.resolved.rows

    def regular_epoch(self, step: int) -> int | None:
        """The epoch whose evaluation falls on this step."""
        epoch = step * self._taken // self.resolved.rows
        epoch -= epoch % self.resolved.every_epochs
        return epoch if epoch > 0 and self._step_of(epoch) == step else None

    def evaluated_epoch(self, step: int) -> int | None:
        """As `regular_epoch`; the last step is evaluated in any case, as the epoch that is under way."""
        regular = self.regular_epoch(step)
        return regular or (math.ceil(self.epoch_at(step)) if step == self.last_step else None)

    @property
    def _taken(self) -> int:
        return self.resolved.batch * self.resolved.accumulate

    def _step_of(self, epoch: int) -> int:
        return -(-epoch * self.resolved.rows // self._taken)

    def next_grid(self, step: int) -> int:
        """The first step after this one at which a window ends."""
        resolved = self.resolved
        epoch = resolved.every_epochs * (step * self._taken // resolved.rows // resolved.every_epochs)
        while self._step_of(epoch) <= step:
            epoch += resolved.every_epochs
        window = (step // resolved.window + 1) * resolved.window
        planned = (step // resolved.every_steps + 1) * resolved.every_steps
        return min(self.last_step, window, planned, self._step_of(epoch))

    def is_planned(self, step: int) -> bool:
        """Whether the plan has a checkpoint at this step, independent of metrics; only there a rewind may begin."""
        return step % self.resolved.every_steps == 0

    def is_rechecked(self, step: int) -> bool:
        """Whether a second process computes the window behind this step again."""
        return is_rechecked(self.request.training.recheck, self.resolved.window, step)

    def rewind_target(self, step: int) -> int:
        """The planned checkpoint at or before a step."""
        return step - step % self.resolved.every_steps
