"""How gradients move weights. The arithmetic is in the engine, one part per optimizer."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from contracts.request.section import Real, Section

Rate = Annotated[Real, Field(gt=0, le=1000)]
Beta = Annotated[Real, Field(ge=0, lt=1)]
Decay = Annotated[Real, Field(ge=0, le=10)]


class Sgd(Section):
    """Stochastic gradient descent, with momentum if asked."""

    type: Literal["sgd"]
    learning_rate: Rate = 0.1
    momentum: Beta = 0.0
    nesterov: bool = False
    weight_decay: Decay = 0.0


class Adam(Section):
    """Adam; weight decay is added to the gradient."""

    type: Literal["adam"]
    learning_rate: Rate = 1e-3
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    epsilon: Real = Field(1e-8, gt=0, le=1)
    weight_decay: Decay = 0.0


class AdamW(Section):
    """Adam with decoupled weight decay."""

    type: Literal["adamw"]
    learning_rate: Rate = 1e-3
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    epsilon: Real = Field(1e-8, gt=0, le=1)
    weight_decay: Decay = 0.01


Optimizer = Annotated[Sgd | Adam | AdamW, Field(discriminator="type")]
