"""What training makes small. The arithmetic is in the engine, one part per loss."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from contracts.request.data import Task
from contracts.request.section import Real, Section


class AutoLoss(Section):
    """The task's own: cross-entropy for classes, mean squared error for numbers, a workload's own loss."""

    task: ClassVar[Task | None] = None
    type: Literal["auto"] = "auto"


class CrossEntropy(Section):
    """For classes."""

    task: ClassVar[Task | None] = "classification"
    type: Literal["cross_entropy"]
    label_smoothing: Real = Field(0.0, ge=0, lt=1)


class Mse(Section):
    """Mean squared error, in units of the target's standard deviation."""

    task: ClassVar[Task | None] = "regression"
    type: Literal["mse"]


class Huber(Section):
    """Squared near zero, linear beyond `delta` standard deviations of the target."""

    task: ClassVar[Task | None] = "regression"
    type: Literal["huber"]
    delta: Real = Field(1.0, gt=0, le=1e6)


Loss = Annotated[AutoLoss | CrossEntropy | Mse | Huber, Field(discriminator="type")]
