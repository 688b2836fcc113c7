"""What rules look at: the recent windows and evaluations on the path, folded from the trainer's lane in lane order.

Bounded, so that a long session costs no more than a short one. It judges nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any, Literal, Self

from contracts.envelope import Fact
from contracts.event import unpack
from contracts.operator import SessionRequested
from contracts.trainer import ControlEvaluated, InterventionApplied, Layer, TrainingClaimed, WindowRecorded

RECENT = 32
RECENT_EVALUATIONS = 64


@dataclass(frozen=True, slots=True)
class WindowEvidence:
    """One recorded window; `lowest` is the smallest median loss of any window on the path up to and with this one."""

    id: str
    first: int
    last: int
    losses: tuple[float, ...]
    median: float
    lowest: float
    gradient_norm: float
    learning_rate: float
    finite: bool
    layers: tuple[Layer, ...]


@dataclass(frozen=True, slots=True)
class EvaluationEvidence:
    """One evaluation; `value` is the control metric, `trained` the median training loss of the last window then.

    `best`, `best_step` and `best_trained` belong to the smallest validation loss up to and with this one.
    """

    id: str
    step: int
    metric: str
    value: float
    loss: float
    trained: float
    improved: bool
    stop: bool
    best: float
    best_step: int
    best_trained: float


@dataclass(frozen=True, slots=True)
class Evidence:
    """The path of one session as of one fact of the trainer's lane."""

    request: dict[str, Any] = field(default_factory=dict)
    resolved: dict[str, Any] = field(default_factory=dict)
    segment: int = 1
    begins: int = 0
    origin: int = 0
    """The step at which the session begins."""
    initial: float | None = None
    """The loss of the very first batch: what a model knows that has learned nothing."""
    windows: tuple[WindowEvidence, ...] = ()
    evaluations: tuple[EvaluationEvidence, ...] = ()
    newest: Literal["", "window", "evaluation"] = ""
    """What the newest fact added to the path."""

    def advance(self, fact: Fact) -> Self:
        """The evidence after one more fact."""
        match fact.event:
            case SessionRequested() as asked:
                return self._begun(asked)
            case TrainingClaimed() as claimed if not self.resolved:
                return replace(self, resolved=claimed.resolved, newest="")
            case WindowRecorded() as window if self._continues(window):
                return self._with_window(window, fact.id)
            case ControlEvaluated() as seen if self._is_new(seen):
                return self._with_evaluation(seen, fact.id)
            case InterventionApplied() as applied if applied.segment > self.segment:
                return self._cut(applied)
        return replace(self, newest="") if self.newest else self

    @property
    def latest(self) -> WindowEvidence | None:
        """The newest recorded window; None before the first."""
        return self.windows[-1] if self.windows else None

    @property
    def total(self) -> int | None:
        """How many steps the plan has, from the newest claim."""
        return self.resolved.get("steps_total")

    @property
    def step(self) -> int:
        """The last step on the path that has been recorded."""
        return self.windows[-1].last if self.windows else self.begins

    def planned(self, step: int) -> int:
        """The planned checkpoint at or before a step: a rewind goes to one of these and nowhere else."""
        every: int = self.resolved.get("every_steps") or 1
        return max(self.origin, step // every * every)

    def _begun(self, asked: SessionRequested) -> Self:
        fork = asked.fork
        if fork is None:
            return replace(self, request=asked.request, newest="")
        return replace(self, request=asked.request, segment=fork.segment, begins=fork.step, origin=fork.step, newest="")

    def _continues(self, window: WindowRecorded) -> bool:
        return window.segment == self.segment and window.last > self.step

    def _is_new(self, seen: ControlEvaluated) -> bool:
        after = not self.evaluations or seen.step > self.evaluations[-1].step
        return after and (seen.segment == self.segment or seen.step > self.begins)

    def _with_window(self, window: WindowRecorded, id: str) -> Self:
        losses = unpack(window.losses)
        sound = [loss for loss in losses if math.isfinite(loss)]
        middle = median(sound) if len(sound) == len(losses) and sound else math.inf
        lowest = min(middle, self.windows[-1].lowest if self.windows else math.inf)
        stretch = WindowEvidence(
            id,
            window.first,
            window.last,
            losses,
            middle,
            lowest,
            window.gradient_norm,
            window.learning_rate,
            window.finite,
            tuple(window.layers),
        )
        initial = losses[0] if window.first == 0 and losses else self.initial
        return replace(self, windows=(*self.windows[1 - RECENT :], stretch), initial=initial, newest="window")

    def _with_evaluation(self, seen: ControlEvaluated, id: str) -> Self:
        loss = seen.values.get("val_loss", math.nan)
        trained = self.windows[-1].median if self.windows else math.nan
        best = (loss, seen.step, trained)
        if self.evaluations and (math.isnan(loss) or self.evaluations[-1].best <= loss):
            last = self.evaluations[-1]
            best = (last.best, last.best_step, last.best_trained)
        value = seen.values.get(seen.metric, math.nan)
        judged = EvaluationEvidence(id, seen.step, seen.metric, value, loss, trained, seen.improved, seen.stop, *best)
        return replace(self, evaluations=(*self.evaluations[1 - RECENT_EVALUATIONS :], judged), newest="evaluation")

    def _cut(self, applied: InterventionApplied) -> Self:
        """A segment begins: what was recorded after its first step is superseded."""
        return replace(
            self,
            segment=applied.segment,
            begins=applied.step,
            windows=tuple(one for one in self.windows if one.last <= applied.step),
            evaluations=tuple(one for one in self.evaluations if one.step <= applied.step),
            newest="",
        )
