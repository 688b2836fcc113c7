"""How gradients move weights. The arithmetic is in the engine, one part per optimizer."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from contracts.request.section import Patterns, Real, Section

Rate = Annotated[Real, Field(gt=0, le=1000)]
Beta = Annotated[Real, Field(ge=0, lt=1)]
Decay = Annotated[Real, Field(ge=0, le=10)]


class ParameterGroup(Section):
    """Parameters that move otherwise than the rest: `rate` multiplies the learning rate, `weight_decay` replaces it."""

    parameters: Patterns = Field(min_length=1)
    rate: Real = Field(1.0, ge=0, le=1e6)
    weight_decay: Decay | None = None


class Moving(Section):
    """What every optimizer has; of several groups the first whose patterns fit a parameter's name takes it."""

    groups: tuple[ParameterGroup, ...] = Field((), max_length=100)


class Sgd(Moving):
    """Stochastic gradient descent, with momentum if asked."""

    type: Literal["sgd"]
    learning_rate: Rate = 0.1
    momentum: Beta = 0.0
    nesterov: bool = False
    weight_decay: Decay = 0.0


class Adam(Moving):
    """Adam; weight decay is added to the gradient."""

    type: Literal["adam"]
    learning_rate: Rate = 1e-3
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    epsilon: Real = Field(1e-8, gt=0, le=1)
    weight_decay: Decay = 0.0


class AdamW(Moving):
    """Adam with decoupled weight decay."""

    type: Literal["adamw"] = "adamw"
    learning_rate: Rate = 1e-3
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    epsilon: Real = Field(1e-8, gt=0, le=1)
    weight_decay: Decay = 0.01


class Lion(Moving):
    """Moves by the sign of a momentum: half of Adam's memory; wants about a tenth of its learning rate."""

    type: Literal["lion"]
    learning_rate: Rate = 1e-4
    betas: tuple[Beta, Beta] = (0.9, 0.99)
    weight_decay: Decay = 0.0


class Adafactor(Moving):
    """Second moments by rows and columns only: next to no memory. Moves are in units of each tensor's own size."""

    type: Literal["adafactor"]
    learning_rate: Rate = 1e-2
    forget: Real = Field(0.8, ge=0, le=1)
    smallest: Real = Field(1e-3, gt=0, le=1)
    clip: Real = Field(1.0, ge=1, le=1e6)
    weight_decay: Decay = 0.0


class OwnOptimizer(Moving):
    """The one that the workload brings; further options of it are among the workload's own."""

    type: Literal["own"]
    learning_rate: Rate = 1e-3
    weight_decay: Decay = 0.0


Optimizer = Annotated[Sgd | Adam | AdamW | Lion | Adafactor | OwnOptimizer, Field(discriminator="type")]
