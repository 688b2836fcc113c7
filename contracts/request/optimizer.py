"""How gradients move weights: filters, optimizers, and the learning rate of each step. The engine has one part each."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from contracts.request.section import AutoWhole, Patterns, Real, Section, Whole, with_default_kind


class Centralise(Section):
    """Takes the mean away from the gradient of each unit's weights; biases and scales stay as they are."""

    type: Literal["centralise"]


class ClipValue(Section):
    """Cuts every single number off at `limit`."""

    type: Literal["clip_value"]
    limit: Real = Field(gt=0, le=1e9)


class Grokfast(Section):
    """Adds `strength` times the gradient's slow part, a running mean that keeps `memory` of itself at each step."""

    type: Literal["grokfast"]
    memory: Real = Field(0.98, ge=0, lt=1)
    strength: Real = Field(2.0, ge=0, le=1000)


Gradient = Annotated[Centralise | ClipValue | Grokfast, Field(discriminator="type")]
"""One filter; a request has any number of them, applied in order."""


Rate = Annotated[Real, Field(gt=0, le=1000)]
Beta = Annotated[Real, Field(ge=0, lt=1)]
Decay = Annotated[Real, Field(ge=0, le=10)]


class ParameterGroup(Section):
    """Parameters that move otherwise than the rest: `rate` multiplies the learning rate, `weight_decay` replaces it."""

    parameters: Patterns = Field(min_length=1)
    rate: Real = Field(1.0, ge=0, le=1e6)
    weight_decay: Decay | None = None


class OptimizerSection(Section):
    """What every optimizer has; of several groups the first whose patterns fit a parameter's name takes it."""

    groups: tuple[ParameterGroup, ...] = Field((), max_length=100)


class Sgd(OptimizerSection):
    """Stochastic gradient descent, with momentum if asked."""

    type: Literal["sgd"]
    learning_rate: Rate = 0.1
    momentum: Beta = 0.0
    nesterov: bool = False
    weight_decay: Decay = 0.0


class Adam(OptimizerSection):
    """Adam; weight decay is added to the gradient."""

    type: Literal["adam"]
    learning_rate: Rate = 1e-3
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    epsilon: Real = Field(1e-8, gt=0, le=1)
    weight_decay: Decay = 0.0


class AdamW(OptimizerSection):
    """Adam with decoupled weight decay."""

    type: Literal["adamw"] = "adamw"
    learning_rate: Rate = 1e-3
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    epsilon: Real = Field(1e-8, gt=0, le=1)
    weight_decay: Decay = 0.01


class Lion(OptimizerSection):
    """Moves by the sign of a momentum: half of Adam's memory; wants about a tenth of its learning rate."""

    type: Literal["lion"]
    learning_rate: Rate = 1e-4
    betas: tuple[Beta, Beta] = (0.9, 0.99)
    weight_decay: Decay = 0.0


class Adafactor(OptimizerSection):
    """Second moments by rows and columns only: next to no memory. Moves are in units of each tensor's own size."""

    type: Literal["adafactor"]
    learning_rate: Rate = 1e-2
    forget: Real = Field(0.8, ge=0, le=1)
    smallest: Real = Field(1e-3, gt=0, le=1)
    clip: Real = Field(1.0, ge=1, le=1e6)
    weight_decay: Decay = 0.0


class OwnOptimizer(OptimizerSection):
    """The one that the workload brings; further options of it are among the workload's own."""

    type: Literal["own"]
    learning_rate: Rate = 1e-3
    weight_decay: Decay = 0.0


Optimizer = Annotated[Sgd | Adam | AdamW | Lion | Adafactor | OwnOptimizer, Field(discriminator="type")]


Share = Annotated[Real, Field(ge=0, le=1)]
Steps = Annotated[Whole, Field(ge=1, le=10**9)]


class ScheduleSection(Section):
    """Every schedule may start with a linear warm-up to the value it begins with."""

    warmup_steps: Whole = Field(0, ge=0, le=10**9)


class Constant(ScheduleSection):
    """The learning rate as it is."""

    type: Literal["constant"] = "constant"


class LinearDecay(ScheduleSection):
    """A straight line down to `floor` of the learning rate at the last step."""

    type: Literal["linear"]
    floor: Share = 0.0


class Cosine(ScheduleSection):
    """Half a cosine down to `floor` of the learning rate at the last step."""

    type: Literal["cosine"]
    floor: Share = 0.0


class OneCycle(ScheduleSection):
    """Up from `start` of the learning rate to all of it in the share `rise` of training, then down to `floor`."""

    type: Literal["one_cycle"]
    rise: Share = 0.3
    start: Share = 0.04
    floor: Share = 4e-6
    shape: Literal["cosine", "linear"] = "cosine"


class Cyclic(ScheduleSection):
    """Up from `floor` in `up_steps` and down again, over and over; each cycle's height is `shrink` of the last."""

    type: Literal["cyclic"]
    up_steps: Steps
    down_steps: AutoWhole = "auto"
    floor: Share = 0.1
    shrink: Real = Field(1.0, gt=0, le=1)


class Step(ScheduleSection):
    """Multiplied by `factor` after every `every_steps` steps."""

    type: Literal["step"]
    every_steps: Steps
    factor: Real = Field(0.1, gt=0, le=1)


class Exponential(ScheduleSection):
    """Multiplied by `factor` per `every_steps` steps, a little at each step."""

    type: Literal["exponential"]
    every_steps: Steps = 1
    factor: Real = Field(gt=0, le=1)


class Plateau(ScheduleSection):
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


class Composite(ScheduleSection):
    """Schedules one after another; they divide training in proportion to their shares."""

    type: Literal["composite"]
    phases: tuple[Phase, ...] = Field(min_length=1, max_length=100)


Schedule = Annotated[
    Constant | LinearDecay | Cosine | OneCycle | Cyclic | Step | Exponential | Plateau | Composite,
    Field(discriminator="type"),
]
