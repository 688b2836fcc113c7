"""Best, patience and early stop: a pure fold over the evaluations on the path, never over a checkpoint."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from contracts.request.early_stopping import EarlyStopping
from contracts.request.validation import less_is_better


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
