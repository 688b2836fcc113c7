"""The sets that come with scikit-learn."""

from __future__ import annotations

from typing import ClassVar, Literal

from contracts.request.data.source import Source, Task


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
