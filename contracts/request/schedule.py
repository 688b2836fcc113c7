"""How the learning rate changes with the step. Closed forms of the step; the values come from the engine's parts."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from contracts.request.section import Real, Section, Whole


class Warmed(Section):
    """Every schedule may start with a linear warm-up."""

    warmup_steps: Whole = Field(0, ge=0, le=10**9)


class Constant(Warmed):
    """The learning rate as it is."""

    type: Literal["constant"] = "constant"


class LinearDecay(Warmed):
    """A straight line down to `floor` of the learning rate at the last step."""

    type: Literal["linear"]
    floor: Real = Field(0.0, ge=0, le=1)


class Cosine(Warmed):
    """Half a cosine down to `floor` of the learning rate at the last step."""

    type: Literal["cosine"]
    floor: Real = Field(0.0, ge=0, le=1)


class Step(Warmed):
    """Multiplied by `factor` after every `every_steps` steps."""

    type: Literal["step"]
    every_steps: Whole = Field(ge=1, le=10**9)
    factor: Real = Field(0.1, gt=0, le=1)


Schedule = Annotated[Constant | LinearDecay | Cosine | Step, Field(discriminator="type")]
