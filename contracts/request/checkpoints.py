"""When state is kept, and how much of it."""

from __future__ import annotations

from pydantic import Field

from contracts.request.section import AutoWhole, Real, Section, Whole


class Checkpoints(Section):
    """`every_steps` rounds up to the window grid; `auto` aims at spans of about a minute.

    With `every_seconds` state is also kept at the next grid step after so long: a place to resume from, nothing more.
    Within `budget_bytes` the best and the last come first, and there are as many anchors as fit beside them.
    """

    every_steps: AutoWhole = "auto"
    every_seconds: Real | None = Field(None, gt=0)
    keep_last: Whole = Field(2, ge=1, le=1000)
    keep_best: Whole = Field(1, ge=1, le=1000)
    anchors: Whole = Field(16, ge=1, le=1000)
    budget_bytes: Whole | None = Field(None, ge=1)
