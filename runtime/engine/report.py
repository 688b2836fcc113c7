"""What the engine says at each grid step, the fold of evaluations into best, patience and stop, and traces of steps.

Values only, without torch. Two traces are compared in a process that never loads the user's code: the code must not
judge itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import zip_longest
from typing import Any, Literal, NamedTuple

from contracts.errors import NotRepeatable
from contracts.request.training import EarlyStopping, less_is_better


@dataclass(frozen=True)
class LayerEvidence:
    """Evidence of one layer at a window's last step: norms, and the share of its units that answered no row.

    `gradient` is before clipping; `dead` is None where units cannot be dead.
    """

    name: str
    gradient: float
    weight: float
    update: float
    dead: float | None = None


@dataclass(frozen=True)
class SensorReadings:
    """What sensors saw of a window: per layer, in the order of its evidence, None where there is nothing to be seen.

    `contracts.trainer.WindowSensors` says what each figure means.
    """

    cosine: tuple[float | None, ...] = ()
    saturated: tuple[float | None, ...] = ()
    noise: tuple[float | None, ...] = ()
    noise_scale: float | None = None
    rows_not_finite: tuple[int, ...] = ()


@dataclass(frozen=True)
class Window:
    """The attempts after step `first` up to step `last`; `losses` and `scalars` are packed float32, little-endian."""

    segment: int
    first: int
    last: int
    losses: bytes
    grad_norm: float
    learning_rate: float
    index_digest: str
    weights_digest: str
    layers: tuple[LayerEvidence, ...]
    finite: bool
    scalars: Mapping[str, bytes] = field(default_factory=dict)
    sensors: SensorReadings | None = None


@dataclass(frozen=True)
class Evaluation:
    """The control metric at an evaluation step, bit for bit, and what follows from it."""

    segment: int
    step: int
    epoch: int
    values: Mapping[str, float]
    metric: str
    improved: bool
    best: float | None
    best_step: int | None
    patience_left: int
    stop: bool


@dataclass(frozen=True)
class Report:
    """One stretch of training up to a grid step; `checkpoint` says whether, and why, the state is to be kept."""

    step: int
    window: Window | None
    evaluation: Evaluation | None
    checkpoint: Literal["", "planned", "best", "final"]
    finished: bool
    stopped_early: bool


@dataclass(frozen=True)
class PoisonedRows:
    """The first attempt that was not sound (0: none was), the training rows that make it so, how many were looked at.

    Rows are places from 1, ascending; none when no few rows are the reason.
    """

    step: int
    rows: tuple[int, ...]
    looked: int


@dataclass(frozen=True)
class Control:
    """The state of best, patience and early stop; `costs` are all evaluations so far, signed so that less is better."""

    metric: str
    enabled: bool
    patience: int
    min_delta: float
    best: float | None = None
    best_step: int | None = None
    waited: int = 0
    improved: bool = False
    costs: tuple[tuple[int, float], ...] = ()

    @classmethod
    def of(cls, rules: EarlyStopping) -> Control:
        """The state of best, patience and early stop before any evaluation, under these rules."""
        return cls(rules.metric, rules.enabled, rules.patience, rules.min_delta)

    def after(self, step: int, value: float) -> Control:
        """After one more evaluation; a value that is not finite is never an improvement."""
        gain = 0.0
        if self.best is not None:
            gain = self.best - value if self.less_is_better else value - self.best
        improved = math.isfinite(value) and (self.best is None or gain > self.min_delta)
        seen = replace(self, costs=(*self.costs, (step, value if self.less_is_better else -value)), improved=improved)
        if improved:
            return replace(seen, best=value, best_step=step, waited=0)
        return replace(seen, waited=self.waited + 1)

    def after_all(self, evaluations: Iterable[tuple[int, float]]) -> Control:
        """After recorded (step, value) pairs in order: how a resume or a rewind restores it."""
        control = self
        for step, value in evaluations:
            control = control.after(step, value)
        return control

    @property
    def less_is_better(self) -> bool:
        """True for losses and errors, false for scores."""
        return less_is_better(self.metric)

    @property
    def patience_left(self) -> int:
        """How many more evaluations may pass without improvement."""
        return max(0, self.patience - self.waited)

    @property
    def stop(self) -> bool:
        """Whether early stop ends the training at this point."""
        return self.enabled and self.waited >= self.patience


GENERATOR, TENSOR = "a generator of its own", "a tensor that is no buffer"
MOVING = (GENERATOR, TENSOR)
"""Attributes that may have moved although they are described in the same words."""


class StepRecord(NamedTuple):
    """One thing that was told about a step, in words, and its exact value."""

    step: int
    what: str
    value: str


@dataclass(frozen=True)
class StepTrace:
    """What some steps gave, in order; the digest of every tensor afterwards; attributes that are no state, in words."""

    first: int
    told: Sequence[StepRecord]
    leaves: Mapping[str, str]
    hidden: Mapping[str, str]


@dataclass(frozen=True)
class Difference:
    """Where two stretches part: in what, the first tensor that differs by name, attributes under suspicion."""

    step: int
    what: str
    tensor: str
    suspects: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)

    def error(self) -> NotRepeatable:
        """It as the error that ends a session, with the cure."""
        message = f"a restart would give other bits: repeated, {self.what} came out otherwise"
        message += f"; the first tensor that differs is {self.tensor!r}" if self.tensor else ""
        found = f"Not the same afterwards: {'; '.join(self.suspects)}. " if self.suspects else ""
        return NotRepeatable(message, cure=found + NotRepeatable.RULES)


def compare_traces(lived: StepTrace, again: StepTrace) -> Difference | None:
    """The first difference between steps as they were lived and the same steps repeated; None when there is none.

    What only one of the two tells of is a difference too.
    """
    names = sorted({*lived.leaves, *again.leaves})
    tensor = next((name for name in names if lived.leaves.get(name) != again.leaves.get(name)), "")
    pairs = zip_longest(_in_order(lived.told), _in_order(again.told))
    parted = next((one or other for one, other in pairs if one != other), None)
    if parted is None and not tensor:
        return None
    step, what = (parted.step, parted.what) if parted else (lived.first, "the state afterwards")
    return Difference(step, what, tensor, suspects(lived.hidden, again.hidden))


def suspects(lived: Mapping[str, str], again: Mapping[str, str]) -> tuple[str, ...]:
    """Attributes that differ between two processes, and generators and tensors, which may differ unseen."""
    changed = [name for name, said in lived.items() if again.get(name) != said]
    found = [f"{name} ({lived[name]}, repeated {again.get(name, 'nothing')})" for name in changed]
    found += [f"{name} ({said})" for name, said in lived.items() if name not in changed and said.startswith(MOVING)]
    return tuple(found)


def _in_order(told: Sequence[StepRecord]) -> list[StepRecord]:
    return sorted(told, key=lambda one: one.step)
