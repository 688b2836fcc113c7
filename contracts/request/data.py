"""Where rows come from and how they are split. Reading them is the data manager's work."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from contracts.request.section import AutoFlag, Name, Options, Real, Section, Whole, refused

Task = Literal["classification", "regression"]


class Split(Section):
    """The shares of the three splits.

    The split has a seed of its own, so that sessions with different training seeds share one prepared dataset.
    """

    train: Real = Field(0.8, gt=0, lt=1)
    val: Real = Field(0.1, gt=0, lt=1)
    test: Real = Field(0.1, ge=0, lt=1)
    stratify: AutoFlag = "auto"
    seed: Whole = Field(0, ge=0, lt=2**63)

    @model_validator(mode="after")
    def _is_whole(self) -> Split:
        total = math.fsum((self.train, self.val, self.test))
        if abs(total - 1) > 1e-6:
            raise refused(f"train, val and test add up to {total:g}", "Choose shares that add up to 1.")
        return self


class Source(Section):
    """What every source has; `known_task` is None where only the rows can tell."""

    known_task: ClassVar[Task | None] = None
    images: ClassVar[bool] = False
    split: Split = Split()


class Digits(Source):
    """1797 hand-written digits of 8x8 pixels, bundled with scikit-learn."""

    known_task: ClassVar[Task | None] = "classification"
    images: ClassVar[bool] = True
    source: Literal["digits"]


class BreastCancer(Source):
    """569 tumours with 30 features, two classes."""

    known_task: ClassVar[Task | None] = "classification"
    source: Literal["breast_cancer"]


class Wine(Source):
    """178 wines with 13 features, three classes."""

    known_task: ClassVar[Task | None] = "classification"
    source: Literal["wine"]


class Iris(Source):
    """150 irises with 4 features, three classes."""

    known_task: ClassVar[Task | None] = "classification"
    source: Literal["iris"]


class Diabetes(Source):
    """442 patients with 10 features and the progression of their disease."""

    known_task: ClassVar[Task | None] = "regression"
    source: Literal["diabetes"]


class Blobs(Source):
    """Generated: one Gaussian cloud per class."""

    known_task: ClassVar[Task | None] = "classification"
    source: Literal["blobs"]
    rows: Whole = Field(1000, ge=30, le=100_000_000)
    features: Whole = Field(2, ge=1, le=100_000)
    classes: Whole = Field(3, ge=2, le=10_000)
    spread: Real = Field(1.0, gt=0, le=1000)
    seed: Whole = Field(0, ge=0, lt=2**63)


class Circles(Source):
    """Generated: two circles, one inside the other, that no straight line separates."""

    known_task: ClassVar[Task | None] = "classification"
    source: Literal["circles"]
    rows: Whole = Field(1000, ge=30, le=100_000_000)
    noise: Real = Field(0.1, ge=0, le=10)
    factor: Real = Field(0.5, gt=0, lt=1)
    seed: Whole = Field(0, ge=0, lt=2**63)


class Csv(Source):
    """A table with a header line; all columns but the target are numeric features."""

    source: Literal["csv"]
    path: Annotated[str, Field(min_length=1, max_length=4096)]
    target: Name
    task: Literal["auto", "classification", "regression"] = "auto"


class WorkloadData(Source):
    """Rows from a registered workload's own `data`; a request names it and never carries code."""

    source: Literal["workload"]
    workload: Name
    options: Options = Field(default_factory=dict)


Data = Annotated[
    Digits | BreastCancer | Wine | Iris | Diabetes | Blobs | Circles | Csv | WorkloadData,
    Field(discriminator="source"),
]
