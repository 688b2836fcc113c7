"""Which model is trained. Building it is the engine's work, one part per architecture."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from contracts.request.section import Name, Options, Patterns, Real, Section, Whole
from contracts.request.task import Task

Width = Annotated[Whole, Field(ge=1, le=65_536)]
Activation = Literal["relu", "gelu", "tanh", "silu"]


class Begun(Section):
    """What weights begin as, and which of them stay: by the names of tensors, `*` stands for any characters.

    `init` is a safetensors file (an export or a checkpoint of ours, or anybody's) with every tensor of the model but
    those that `fresh` names; `freeze` names weights that are not trained, and statistics that are not gathered.
    """

    init: Annotated[str, Field(min_length=1, max_length=4096)] | None = None
    fresh: Patterns = Field((), max_length=1000)
    freeze: Patterns = Field((), max_length=1000)


class BuiltIn(Begun):
    """A model of ours; `standardize` makes its first layer scale inputs by the training split's mean and deviation."""

    learns: ClassVar[Task | None] = None
    does: ClassVar[tuple[Task, ...]] = ("classification", "regression", "embedding")
    needs_images: ClassVar[bool] = False
    standardize: bool = True


class Linear(BuiltIn):
    """One linear layer: logistic or linear regression."""

    architecture: Literal["linear"]


class Mlp(BuiltIn):
    """Fully connected layers."""

    architecture: Literal["mlp"]
    hidden: tuple[Width, ...] = Field((256, 256), min_length=1, max_length=64)
    activation: Activation = "relu"
    dropout: Real = Field(0.0, ge=0, lt=1)


class Cnn(BuiltIn):
    """Convolution blocks with batch normalisation, pooled and classified."""

    needs_images: ClassVar[bool] = True
    architecture: Literal["cnn"]
    channels: tuple[Width, ...] = Field((32, 64, 128), min_length=1, max_length=16)
    dropout: Real = Field(0.1, ge=0, lt=1)


class WorkloadModel(Begun):
    """A registered workload's own model and loss; a request names it and never carries code."""

    learns: ClassVar[Task | None] = None
    architecture: Literal["workload"]
    workload: Name
    options: Options = Field(default_factory=dict)


Model = Annotated[Linear | Mlp | Cnn | WorkloadModel, Field(discriminator="architecture")]

BUILT_IN: tuple[type[BuiltIn], ...] = (Linear, Mlp, Cnn)
"""Every model of ours."""
