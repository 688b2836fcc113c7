"""When state is kept, and how much of it."""

from __future__ import annotations

from pydantic import Field

from contracts.request.section import AutoWhole, Section, Whole


class Checkpoints(Section):
    """`every_steps` rounds up to the window grid; `auto` aims at spans of about a minute."""

    every_steps: AutoWhole = "auto"
    keep_last: Whole = Field(2, ge=1, le=1000)
    keep_best: Whole = Field(1, ge=1, le=1000)
    anchors: Whole = Field(16, ge=1, le=1000)
