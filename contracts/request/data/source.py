"""What every source has in common. Which sources there are is said beside it, one file per family."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from contracts.request.data.split import Split
from contracts.request.section import Real, Section, Whole
from contracts.request.task import DataTask

Task = DataTask
AutoTask = Literal["auto", "classification", "regression"]
Path = Annotated[str, Field(min_length=1, max_length=4096)]


class Synthetic(Section):
    """Rows made for rare classes: between a row of the class and one of its `neighbours`, in the training split only.

    Every class is filled up to `share` of the rows of the largest; 0 makes none.
    """

    share: Real = Field(0.0, ge=0, le=1)
    neighbours: Whole = Field(5, ge=1, le=100)
    seed: Whole = Field(0, ge=0, lt=2**63)


class Source(Section):
    """What every source has; `known_task` is None where only the rows can tell."""

    known_task: ClassVar[Task | None] = None
    images: ClassVar[bool] = False
    split: Split = Split()
    synthetic: Synthetic = Synthetic()


class Foreign(Source):
    """Rows from outside: up to the share `tolerance` of them may be broken and is set aside; beyond it is refused."""

    tolerance: Real = Field(0.05, ge=0, le=0.5)


class File(Foreign):
    """Rows from the disk. Equal rows count as broken ones, unless they are the data and stay: `duplicates: keep`."""

    path: Path
    duplicates: Literal["set-aside", "keep"] = "set-aside"
