"""What the engine says at each grid step, and the fold of evaluations into best, patience and stop. Values only."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

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
