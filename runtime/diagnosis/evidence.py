"""What rules look at and what they say: recent windows and evaluations on the path, and the finding of a rule.

The evidence is folded from the trainer's lane in lane order. It is bounded, so that a long session costs no more than a
short one, and judges nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Literal, Protocol, Self, TypeVar

from pydantic import JsonValue

from contracts.diagnostician import InterventionProposed, ProblemDiagnosed
from contracts.envelope import Fact
from contracts.event import unpack
from contracts.operator import SessionRequested
from contracts.trainer import ControlEvaluated, InterventionApplied, Layer, TrainingClaimed, WindowRecorded
from runtime.engine.parts.levers import ClipNorm, RateFactor
from runtime.engine.plain_kinds import Lever
from runtime.engine.registry import Registry

RECENT = 32
RECENT_EVALUATIONS = 64
MOST_EVIDENCE = 32
"""Events that a diagnosis names."""

GENTLER_RATE, GENTLER_CLIP = 0.1, 1.0


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
class PlanGrid:
    """What rules need to know of a resolved plan, as the first claim has it: steps, and where windows and spans end."""

    total: int | None
    window: int
    every_steps: int


@dataclass(frozen=True, slots=True)
class Evidence:
    """The path of one session as of one fact of the trainer's lane."""

    auto_fix: bool = False
    prove: bool = False
    grid: PlanGrid | None = None
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
        last = self.evaluations[-1].step if self.evaluations else -1
        match fact.event:
            case SessionRequested() as asked:
                wanted, fork = asked.request.get("diagnosis") or {}, asked.fork
                auto_fix, prove = (bool(wanted.get(name)) for name in ("auto_fix", "prove"))
                begun = replace(self, auto_fix=auto_fix, prove=prove, newest="")
                return replace(begun, segment=fork.segment, begins=fork.step, origin=fork.step) if fork else begun
            case TrainingClaimed(resolved=resolved) if resolved and self.grid is None:
                window, every_steps = (resolved.get(name) or 1 for name in ("window", "every_steps"))
                return replace(self, grid=PlanGrid(resolved.get("steps_total"), window, every_steps), newest="")
            case WindowRecorded() as window if window.segment == self.segment and window.last > self.step:
                return self._with_window(window, fact.id)
            case ControlEvaluated() as seen if seen.step > last and (
                seen.segment == self.segment or seen.step > self.begins
            ):
                return self._with_evaluation(seen, fact.id)
            case InterventionApplied() as applied if applied.segment > self.segment:
                # A segment begins: what was recorded after its first step is superseded.
                return replace(
                    self,
                    segment=applied.segment,
                    begins=applied.step,
                    windows=tuple(window for window in self.windows if window.last <= applied.step),
                    evaluations=tuple(seen for seen in self.evaluations if seen.step <= applied.step),
                    newest="",
                )
        return replace(self, newest="") if self.newest else self

    @property
    def latest(self) -> WindowEvidence | None:
        """The newest recorded window; None before the first."""
        return self.windows[-1] if self.windows else None

    @property
    def total(self) -> int | None:
        """How many steps the plan has; None before the first claim."""
        return self.grid.total if self.grid else None

    @property
    def step(self) -> int:
        """The last step on the path that has been recorded."""
        return self.windows[-1].last if self.windows else self.begins

    def planned(self, step: int) -> int:
        """The planned checkpoint at or before a step: a rewind goes to one of these and nowhere else."""
        every = self.grid.every_steps if self.grid else 1
        return max(self.origin, step // every * every)

    def finite_windows(self, count: int) -> tuple[WindowEvidence, ...]:
        """The last `count` windows when the newest fact was one, and all of them are finite; none else."""
        recent = self.windows[-count:]
        judged = self.newest == "window" and len(recent) == count and all(window.finite for window in recent)
        return recent if judged else ()

    def recent_evaluations(self, count: int) -> tuple[EvaluationEvidence, ...]:
        """The last `count` evaluations when the newest fact was one, and there are so many; none else."""
        recent = self.evaluations[-count:]
        return recent if self.newest == "evaluation" and len(recent) == count else ()

    def has_learned(self, share: float) -> bool:
        """Whether the newest window's loss is below `share` of that of the untrained model."""
        initial = self.initial or 0.0
        return self.latest is not None and self.latest.median < initial - (1 - share) * abs(initial)

    def _with_window(self, window: WindowRecorded, id: str) -> Self:
        losses = unpack(window.losses)
        sound = [loss for loss in losses if math.isfinite(loss)]
        middle = median(sound) if len(sound) == len(losses) and sound else math.inf
        lowest = min(middle, self.windows[-1].lowest if self.windows else math.inf)
        recorded = WindowEvidence(
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
        return replace(self, windows=(*self.windows[1 - RECENT :], recorded), initial=initial, newest="window")

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


@dataclass(frozen=True, slots=True)
class Remedy:
    """A change of plan from the planned checkpoint `rewind_to` on."""

    rewind_to: int
    levers: tuple[Lever, ...]
    why: str

    @classmethod
    def gentler(cls, why: str, step: int) -> Remedy:
        """From the planned `step` again, with a smaller learning rate and clipped gradients."""
        return cls(step, (RateFactor(GENTLER_RATE), ClipNorm(GENTLER_CLIP)), why)

    @property
    def changes(self) -> dict[str, JsonValue]:
        """The levers as events tell them."""
        return {lever.name: lever.recorded for lever in self.levers}

    @property
    def reason(self) -> str:
        """Why, and what is changed."""
        changes = " and ".join(lever.sentence() for lever in self.levers)
        return f"{self.why}; from step {self.rewind_to} again with {changes}."


@dataclass(frozen=True, slots=True)
class RuleFinding:
    """One problem in the steps [first, last]; `remedy` is there only when it can be put right without a person."""

    rule: str
    severity: Literal["note", "warning", "critical"]
    first: int
    last: int
    message: str
    cure: str
    evidence: tuple[str, ...]
    figures: Mapping[str, float] = field(default_factory=dict)
    remedy: Remedy | None = None

    def diagnosed(self, segment: int) -> ProblemDiagnosed:
        """The event that tells it."""
        return ProblemDiagnosed(
            rule=self.rule,
            segment=segment,
            first=self.first,
            last=self.last,
            severity=self.severity,
            message=self.message,
            cure=self.cure,
            evidence=list(self.evidence[-MOST_EVIDENCE:]),
            figures=dict(self.figures),
        )

    def proposed(self, segment: int) -> InterventionProposed | None:
        """The event that proposes its remedy."""
        if self.remedy is None:
            return None
        return InterventionProposed(
            rule=self.rule,
            segment=segment,
            rewind_to=self.remedy.rewind_to,
            changes=dict(self.remedy.changes),
            reason=self.remedy.reason,
            automatic=True,
        )


class Rule(Protocol):
    """One way of being wrong. `look` is pure and is called after every window and every evaluation on the path."""

    @property
    def name(self) -> str:
        """What the rule is called in events."""
        ...

    def look(self, seen: Evidence) -> RuleFinding | None:
        """What is wrong as of the newest fact, or None."""
        ...


rules: Registry[Rule] = Registry("runtime.diagnosis.rules")

Found = TypeVar("Found", bound=type[Rule])


def rule(part: Found) -> Found:
    """Decorator: registers a rule, which is asked after those that were registered before it."""
    made = part()
    rules.part(made.name)(made)
    return part
