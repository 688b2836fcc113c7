"""Levers: what a decision may change of a plan that is under way. No torch is imported here."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar, Self

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
