"""How the learning rate changes with the step. Closed forms of the step; the values come from the engine's parts."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from contracts.request.section import AutoWhole, Real, Section, Whole, with_default_kind

Share = Annotated[Real, Field(ge=0, le=1)]
Steps = Annotated[Whole, Field(ge=1, le=10**9)]


class Warmed(Section):
    """Every schedule may start with a linear warm-up to the value it begins with."""

    warmup_steps: Whole = Field(0, ge=0, le=10**9)


class Constant(Warmed):
    """The learning rate as it is."""

    type: Literal["constant"] = "constant"


class LinearDecay(Warmed):
    """A straight line down to `floor` of the learning rate at the last step."""

    type: Literal["linear"]
    floor: Share = 0.0


class Cosine(Warmed):
    """Half a cosine down to `floor` of the learning rate at the last step."""

    type: Literal["cosine"]
    floor: Share = 0.0


class OneCycle(Warmed):
    """Up from `start` of the learning rate to all of it in the share `rise` of training, then down to `floor`."""

    type: Literal["one_cycle"]
    rise: Share = 0.3
    start: Share = 0.04
    floor: Share = 4e-6
    shape: Literal["cosine", "linear"] = "cosine"


class Cyclic(Warmed):
    """Up from `floor` in `up_steps` and down again, over and over; each cycle's height is `shrink` of the last."""

    type: Literal["cyclic"]
    up_steps: Steps
    down_steps: AutoWhole = "auto"
    floor: Share = 0.1
    shrink: Real = Field(1.0, gt=0, le=1)


class Step(Warmed):
    """Multiplied by `factor` after every `every_steps` steps."""

    type: Literal["step"]
    every_steps: Steps
    factor: Real = Field(0.1, gt=0, le=1)


class Exponential(Warmed):
    """Multiplied by `factor` per `every_steps` steps, a little at each step."""

    type: Literal["exponential"]
    every_steps: Steps = 1
    factor: Real = Field(gt=0, le=1)


class Plateau(Warmed):
    """Multiplied by `factor` when the control metric has not got better for more than `patience` evaluations.

    Better means by more than `min_delta`; after a cut, `rest` evaluations do not count; `floor` is the lowest share.
    """

    type: Literal["plateau"]
    factor: Real = Field(0.1, gt=0, lt=1)
    patience: Whole = Field(3, ge=0, le=1_000_000)
    rest: Whole = Field(0, ge=0, le=1_000_000)
    min_delta: Real = Field(0.0, ge=0, le=1e9)
    floor: Share = 0.0


Simple = Annotated[
    Constant | LinearDecay | Cosine | OneCycle | Cyclic | Step | Exponential | Plateau, Field(discriminator="type")
]


class Phase(Section):
    """One schedule over its share of training, times `level`."""

    share: Real = Field(1.0, gt=0, le=1e6)
    level: Real = Field(1.0, ge=0, le=1e6)
    schedule: Simple = Constant()

    @field_validator("schedule", mode="before")
    @classmethod
    def _kind_may_be_left_out(cls, given: Any) -> Any:
        return with_default_kind(given, cls.model_fields["schedule"])


class Composite(Warmed):
    """Schedules one after another; they divide training in proportion to their shares."""

    type: Literal["composite"]
    phases: tuple[Phase, ...] = Field(min_length=1, max_length=100)


Schedule = Annotated[
    Constant | LinearDecay | Cosine | OneCycle | Cyclic | Step | Exponential | Plateau | Composite,
    Field(discriminator="type"),
]
