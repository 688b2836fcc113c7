"""How rows are divided into those that train, validate and test. Drawing them is the data manager's work."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pydantic import Field, model_validator

from contracts.request.section import AutoFlag, Name, Real, Section, Whole, refused


class Split(Section):
    """The shares of the three splits, or `folds` of equal size of which number `fold` (from 0) validates.

    `group` names a column whose values never meet in two splits, `time` one by which the latest rows test and those
    before them validate; neither is a feature then. The split has a seed of its own, so that sessions with different
    training seeds share one prepared dataset. With `folds`, train and val follow from them, and only a `test` that is
    written out is held back.
    """

    train: Real = Field(0.8, gt=0, lt=1)
    val: Real = Field(0.1, gt=0, lt=1)
    test: Real = Field(0.1, ge=0, lt=1)
    stratify: AutoFlag = "auto"
    group: Name | None = None
    time: Name | None = None
    folds: Whole | None = Field(None, ge=2, le=1000)
    fold: Whole = Field(0, ge=0, lt=1000)
    seed: Whole = Field(0, ge=0, lt=2**63)

    @model_validator(mode="before")
    @classmethod
    def _folds_give_the_shares(cls, raw: Any) -> Any:
        if not isinstance(raw, Mapping) or not isinstance(folds := raw.get("folds"), int) or folds < 2:
            return raw
        test = raw.get("test", 0.0)
        if not isinstance(test, int | float):
            return raw
        val = (1 - test) / folds
        return {"test": test, "val": val, "train": 1 - test - val, **raw}

    @model_validator(mode="after")
    def _is_whole(self) -> Split:
        total = math.fsum((self.train, self.val, self.test))
        if abs(total - 1) > 1e-6:
            raise refused(f"train, val and test add up to {total:g}", "Choose shares that add up to 1.")
        if self.folds is None and self.fold:
            raise refused(f"fold {self.fold} of no folds", "Say how many `folds` there are.")
        if self.folds is not None and self.fold >= self.folds:
            raise refused(f"there is no fold {self.fold}", f"Write a fold from 0 to {self.folds - 1}.")
        if self.folds is not None and abs(self.val * self.folds - (1 - self.test)) > 1e-6:
            cure = "Leave `train` and `val` out: they follow from `folds`."
            raise refused(f"{self.folds} folds do not validate with {self.val:g}", cure)
        if self.time and (self.group or self.folds or self.stratify is True):
            raise refused("a split by time has no groups, folds or strata", "Leave those or `time` out.")
        return self
