"""What rules look at and what they say: recent windows and evaluations on the path, and the finding of a rule.

The evidence is folded from the trainer's lane in lane order. It is bounded, so that a long session costs no more than a
short one, and judges nothing.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from itertools import pairwise
from statistics import median
from typing import Any, ClassVar, Literal, Self, TypeVar

from pydantic import JsonValue

from contracts.data_manager import DatasetPrepared
from contracts.diagnostician import Confidence, InterventionProposed, ProblemDiagnosed, Severity
from contracts.envelope import Fact
from contracts.event import unpack
from contracts.operator import SessionRequested
from contracts.request.training import DiagnosisMode, diagnosis_of
from contracts.resource_monitor import ResourcesMeasured
from contracts.trainer import (
    ControlEvaluated,
    InterventionApplied,
    Layer,
    MemoryExhausted,
    TrainingClaimed,
    WindowRecorded,
)
from runtime.engine.parts.levers import ClipNorm, RateFactor
from runtime.engine.plain_kinds import Lever
from runtime.engine.registry import Registry

RECENT = 32
RECENT_EVALUATIONS = 64
MOST_POINTS = 64
FIRST_RESOURCES = 4
MOST_EVIDENCE = 32
"""Events that a diagnosis names."""

GENTLER_RATE, GENTLER_CLIP = 0.1, 1.0


@dataclass(frozen=True)
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
    spoiled: tuple[int, ...] = ()
    """Rows with stored values that are not finite."""

    @cached_property
    def mean(self) -> float:
        """The mean loss; infinite or NaN where a loss is."""
        return sum(self.losses) / len(self.losses)

    @cached_property
    def noise(self) -> float:
        """The deviation of a single loss, from the median change between two steps, to which a trend adds little."""
        changes = [abs(after - before) for before, after in pairwise(self.losses)]
        return _DEVIATION * median(changes) if changes else 0.0

    @cached_property
    def ratio(self) -> float:
        """The median over layers of the update's norm over the weight's; NaN where there are none."""
        ratios = [layer.update / layer.weight for layer in self.layers if layer.weight > 0]
        return median(ratios) if ratios else math.nan

    @cached_property
    def cosine(self) -> float:
        """The median over layers of the cosine of successive gradients; NaN where it was not measured."""
        cosines = [layer.cosine for layer in self.layers if layer.cosine is not None]
        return median(cosines) if cosines else math.nan


_DEVIATION = 1.4826 / math.sqrt(2)
"""A normal deviation from the median distance of two draws."""


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """The mean loss of some windows in a row, the last of which ends at `last`."""

    last: int
    loss: float
    steps: int


@dataclass(frozen=True, slots=True)
class TaskFacts:
    """What request and dataset say of the task before anything is trained.

    `chance` is the loss of a model that knows how often each answer occurs and nothing else; None where it does not
    follow from the loss. `share` is the accuracy of such a model; None where answers are not classes.
    """

    kind: str = ""
    classes: int = 0
    counts: tuple[int, ...] = ()
    rows: Mapping[str, int] = field(default_factory=dict)
    chance: float | None = None
    share: float | None = None
    scales: tuple[float, float] | None = None
    """How far from 0 the inputs reach (the largest mean or deviation of a feature), and the smallest deviation."""
    leaks: Mapping[str, int] = field(default_factory=dict)
    """By split, how many of its rows are also trained on."""
    telling: tuple[str, ...] = ()
    """Features that give the answer away."""
    doubtful: int = 0
    """About how many rows are answered otherwise than rows like them."""

    @classmethod
    def read(cls, request: Mapping[str, Any], prepared: DatasetPrepared) -> Self:
        """The task of a request and its dataset."""
        facts, counts = prepared.facts, tuple(prepared.facts.counts)
        total, classified = sum(counts), facts.task == "classification"
        scales = None
        if facts.scale and not (request.get("model") or {}).get("standardize"):
            sizes = [abs(size) for size in (*facts.mean, *facts.scale) if size is not None]
            scales = (max(sizes, default=1.0), min((one for one in facts.scale if one), default=1.0))
        return cls(
            kind=facts.task,
            classes=facts.outputs if classified else 0,
            counts=counts,
            rows=facts.rows,
            chance=_chance(request.get("loss") or {}, facts.task, facts.outputs, counts),
            share=(max(counts) / total if total else 1 / facts.outputs) if classified and facts.outputs else None,
            scales=scales,
            leaks={one.kind[5:]: one.count for one in prepared.findings if one.kind.startswith("leak-")},
            telling=next((tuple(one.where) for one in prepared.findings if one.kind == "telling-feature"), ()),
            doubtful=next((one.count for one in prepared.findings if one.kind == "doubtful-answers"), 0),
        )


def _chance(loss: Mapping[str, Any], task: str, outputs: int, counts: Sequence[int]) -> float | None:
    """The loss of a model that knows how often each answer occurs; None for losses of which it does not follow."""
    asked = loss.get("type", "auto")
    if task == "regression" and asked in ("auto", "mse"):
        return 1.0  # in units of the target's deviation
    if outputs < 2 or asked not in ("auto", "cross_entropy") or task not in ("classification", "sequences"):
        return None
    if not sum(counts) or loss.get("class_weights", "equal") != "equal":
        return math.log(outputs)
    smoothing = float(loss.get("label_smoothing") or 0.0)
    shares = [(1 - smoothing) * count / sum(counts) + smoothing / outputs for count in counts if count or smoothing]
    return -math.fsum(share * math.log(share) for share in shares if share > 0)


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
    values: Mapping[str, float] = field(default_factory=dict)

    @property
    def first(self) -> int:
        """The step at which it was made, as `last`."""
        return self.step

    @property
    def last(self) -> int:
        """The step at which it was made."""
        return self.step


@dataclass(frozen=True, slots=True)
class PlanGrid:
    """What rules need to know of a resolved plan, as the first claim has it: steps, and where windows and spans end."""

    total: int | None
    window: int
    every_steps: int


@dataclass(frozen=True, slots=True)
class Evidence:
    """The path of one session as of one fact of the trainer's lane."""

    mode: DiagnosisMode = "observe"
    prove: bool = False
    edition: int = 1
    """The newest rules that are asked; a session whose windows have no sensors was begun by those of edition 1."""
    request: Mapping[str, Any] = field(default_factory=dict)
    task: TaskFacts = TaskFacts()
    grid: PlanGrid | None = None
    segment: int = 1
    begins: int = 0
    origin: int = 0
    """The step at which the session begins."""
    initial: float | None = None
    """The loss of the very first batch: what a model knows that has learned nothing."""
    windows: tuple[WindowEvidence, ...] = ()
    evaluations: tuple[EvaluationEvidence, ...] = ()
    curve: tuple[CurvePoint, ...] = ()
    """The training loss of the whole path, in at most 64 points."""
    resources: tuple[tuple[str, ResourcesMeasured], ...] = ()
    """The first four and the newest sums over epochs, with the ids of their events."""
    exhausted: tuple[str, MemoryExhausted] | None = None
    """That this segment ran out of memory, with the id of its event."""
    newest: Literal["", "window", "evaluation", "resources", "exhaustion"] = ""
    """What the newest fact added to the path."""

    def advance(self, fact: Fact) -> Self:
        """The evidence after one more fact."""
        last = self.evaluations[-1].step if self.evaluations else -1
        match fact.event:
            case SessionRequested() as asked:
                wanted, fork = diagnosis_of(asked.request), asked.fork
                begun = replace(self, mode=wanted.mode, prove=wanted.prove, request=asked.request, newest="")
                return replace(begun, segment=fork.segment, begins=fork.step, origin=fork.step) if fork else begun
            case DatasetPrepared() | TrainingClaimed() | ResourcesMeasured() | MemoryExhausted() as told:
                return self._with_facts(told, fact.id)
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
                    curve=tuple(point for point in self.curve if point.last <= applied.step),
                    evaluations=tuple(seen for seen in self.evaluations if seen.step <= applied.step),
                    exhausted=None,
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

    def asked_float(self, section: str, name: str) -> float:
        """A number of the request; 0 where there is none."""
        given = (self.request.get(section) or {}).get(name)
        return float(given) if isinstance(given, int | float) else 0.0

    @property
    def is_foreign(self) -> bool:
        """Whether model and loss are a user's own code, of which requests say nothing."""
        return bool((self.request.get("model") or {}).get("architecture") == "workload")

    @property
    def decay_per_step(self) -> float:
        """The share of the weights that decay is asked to take away in a step."""
        return self.asked_float("optimizer", "weight_decay") * self.asked_float("optimizer", "learning_rate")

    @property
    def progress(self) -> float:
        """The share of the plan that has been recorded; 0 while the plan is not known."""
        return self.step / self.total if self.total else 0.0

    @property
    def chance(self) -> float | None:
        """The loss of a model that knows nothing of the inputs: from the task, else that of the first batch."""
        return self.task.chance if self.task.chance is not None else self.initial

    @property
    def untrained(self) -> float | None:
        """The loss of a model that does not know how often each answer occurs; where good weights begin."""
        chance = self.task.chance
        return None if chance is None else max(chance, math.log(self.task.classes)) if self.task.classes else chance

    @property
    def batch(self) -> float:
        """The rows of one step, as the request has them; 1 where it says nothing."""
        rows = self.asked_float("training", "batch_size") * max(1.0, self.asked_float("training", "accumulate"))
        return max(1.0, rows)

    def skill(self, loss: float) -> float:
        """How much better than chance a loss is: 0 for chance, 1 for a loss of 0; 0 where chance is not known."""
        chance = self.chance
        return 1 - loss / chance if chance and chance > 0 else 0.0

    def between(self, begin: float, end: float) -> float:
        """The mean loss of the steps from one share of what has been recorded to another; NaN where nothing is."""
        first, last = self.origin + begin * (self.step - self.origin), self.origin + end * (self.step - self.origin)
        points = [point for point in self.curve if first < point.last <= last]
        steps = sum(point.steps for point in points)
        return sum(point.loss * point.steps for point in points) / steps if steps else math.nan

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

    def _with_facts(
        self, told: DatasetPrepared | TrainingClaimed | ResourcesMeasured | MemoryExhausted, id: str
    ) -> Self:
        if isinstance(told, MemoryExhausted):
            return replace(self, exhausted=(id, told), newest="exhaustion")
        if isinstance(told, ResourcesMeasured):
            first, newest = self.resources[:FIRST_RESOURCES], self.resources[FIRST_RESOURCES:][1 - RECENT :]
            return replace(self, resources=(*first, *newest, (id, told)), newest="resources")
        if isinstance(told, DatasetPrepared):
            return replace(self, task=TaskFacts.read(self.request, told), newest="")
        if self.grid is not None or not told.resolved:
            return replace(self, newest="")
        window, every_steps = (told.resolved.get(name) or 1 for name in ("window", "every_steps"))
        return replace(self, grid=PlanGrid(told.resolved.get("steps_total"), window, every_steps), newest="")

    def _with_window(self, window: WindowRecorded, id: str) -> Self:
        losses = unpack(window.losses)
        sensors = window.sensors
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
            window.layers,
            tuple(sensors.rows_not_finite) if sensors else (),
        )
        return replace(
            self,
            edition=max(self.edition, 1 if sensors is None else 2),
            windows=(*self.windows[1 - RECENT :], recorded),
            curve=_longer(self.curve, CurvePoint(window.last, recorded.mean, len(losses))) if losses else self.curve,
            initial=losses[0] if window.first == 0 and losses else self.initial,
            newest="window",
        )

    def _with_evaluation(self, seen: ControlEvaluated, id: str) -> Self:
        loss = seen.values.get("val_loss", math.nan)
        trained = self.windows[-1].median if self.windows else math.nan
        best = (loss, seen.step, trained)
        if self.evaluations and (math.isnan(loss) or self.evaluations[-1].best <= loss):
            last = self.evaluations[-1]
            best = (last.best, last.best_step, last.best_trained)
        value = seen.values.get(seen.metric, math.nan)
        about = (id, seen.step, seen.metric, value, loss, trained, seen.improved, seen.stop)
        judged = EvaluationEvidence(*about, *best, seen.values)
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
    severity: Severity
    first: int
    last: int
    message: str
    cure: str
    evidence: tuple[str, ...]
    figures: Mapping[str, float] = field(default_factory=dict)
    remedy: Remedy | None = None
    confidence: Confidence = "likely"
    beside: str = ""
    """The rule as whose cause it counts, where that is not its own place: what lasts explains more than what passed."""

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
            confidence=self.confidence,
            priority=priority(self.beside or self.rule),
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


class Rule(ABC):
    """One way of being wrong. `look` is pure, and is called after each window or evaluation on the path.

    `after` names what it is called after. `looks_at`, `severity` and `cure` are what documents say of it; a finding may
    be milder, and its cure more exact.
    Rules of a later `edition` are not asked about sessions that were begun before there were such.
    """

    name: ClassVar[str]
    looks_at: ClassVar[str]
    severity: ClassVar[Severity]
    cure: ClassVar[str]
    edition: ClassVar[int] = 2
    after: ClassVar[tuple[str, ...]] = ("window",)

    @abstractmethod
    def look(self, seen: Evidence) -> RuleFinding | None:
        """What is wrong as of the newest fact, or None."""

    def finding(
        self,
        seen: Evidence,
        message: str,
        evidence: Iterable[WindowEvidence | EvaluationEvidence],
        *,
        figures: Mapping[str, float],
        confidence: Confidence = "likely",
        severity: Severity | None = None,
        cure: str = "",
    ) -> RuleFinding:
        """A finding without a remedy, about the steps of the windows and evaluations that show it."""
        shown = sorted(evidence, key=lambda one: one.last)
        steps = (shown[0].first, shown[-1].last) if shown else (seen.begins, seen.step)
        ids = tuple(one.id for one in shown)
        given = (severity or self.severity, *steps, message, cure or self.cure, ids)
        return RuleFinding(self.name, *given, dict(figures), confidence=confidence)


rules: Registry[Rule] = Registry("runtime.diagnosis.rules")

Found = TypeVar("Found", bound=type[Rule])


def rule(part: Found) -> Found:
    """Decorator: registers a rule, which is asked after those that were registered before it."""
    rules.part(part.name)(part())
    return part


def asked(seen: Evidence) -> tuple[Rule, ...]:
    """The rules to ask about the newest fact, the one that explains most first."""
    return _asked(seen.newest, seen.edition, len(rules.all))


@lru_cache(maxsize=16)
def _asked(newest: str, edition: int, count: int) -> tuple[Rule, ...]:
    """As `asked`; `count` rules are registered."""
    return tuple(rule for rule in rules.all.values() if newest in rule.after and rule.edition <= edition)


def priority(name: str) -> int:
    """The place of a rule among all, from 1; 0 for what is no rule."""
    return list(rules.all).index(name) + 1 if name in rules.all else 0


def _longer(curve: tuple[CurvePoint, ...], point: CurvePoint) -> tuple[CurvePoint, ...]:
    """The curve with one more point; full, it is told in half as many."""
    if len(curve) < MOST_POINTS:
        return (*curve, point)
    pairs = zip(curve[::2], curve[1::2], strict=True)
    halved = (
        CurvePoint(b.last, (a.loss * a.steps + b.loss * b.steps) / (a.steps + b.steps), a.steps + b.steps)
        for a, b in pairs
    )
    return (*halved, point)
