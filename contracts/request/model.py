"""Which model is trained. Building it is the engine's work, one part per architecture."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, get_args

from pydantic import Field, model_validator

from contracts.request.section import Name, Options, Patterns, Real, Section, Task, Whole, refused

Width = Annotated[Whole, Field(ge=1, le=65_536)]
Activation = Literal["relu", "gelu", "tanh", "silu"]


class ModelSection(Section):
    """What weights begin as, and which of them stay: by the names of tensors, in which `*` matches any characters.

    `init` is a safetensors file (an export or a checkpoint of ours, or anybody's) with every tensor of the model but
    those that `fresh` names; `freeze` names weights that are not trained, and statistics that are not gathered.
    """

    init: Annotated[str, Field(min_length=1, max_length=4096)] | None = None
    fresh: Patterns = Field((), max_length=1000)
    freeze: Patterns = Field((), max_length=1000)


class BuiltIn(ModelSection):
    """A model of ours; `standardize` makes its first layer scale inputs by the training split's mean and deviation.

    `made_of` names the engine's part that builds its linear and convolution layers.
    """

    learns: ClassVar[Task | None] = None
    does: ClassVar[tuple[Task, ...]] = ("classification", "regression", "embedding")
    needs_images: ClassVar[bool] = False
    made_of: ClassVar[str] = "plain"
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


class ResNet(BuiltIn):
    """Residual blocks in stages, each twice as wide as the last and half as large; as it stands, ResNet-18."""

    needs_images: ClassVar[bool] = True
    architecture: Literal["resnet"]
    width: Width = 64
    blocks: tuple[Annotated[Whole, Field(ge=1, le=1000)], ...] = Field((2, 2, 2, 2), min_length=1, max_length=8)
    dropout: Real = Field(0.0, ge=0, lt=1)


class Transformer(BuiltIn):
    """Self-attention over tokens, the rows of an image, or features one by one; tokens see only those before them."""

    does: ClassVar[tuple[Task, ...]] = ("classification", "regression", "embedding", "sequences")
    architecture: Literal["transformer"]
    width: Width = 64
    heads: Annotated[Whole, Field(ge=1, le=1024)] = 4
    layers: Annotated[Whole, Field(ge=1, le=1000)] = 2
    activation: Activation = "gelu"
    dropout: Real = Field(0.1, ge=0, lt=1)

    @model_validator(mode="after")
    def _divides_evenly(self) -> Transformer:
        if self.width % self.heads:
            message = f"a width of {self.width} does not divide evenly among {self.heads} heads"
            raise refused(message, f"Choose a width that is a multiple of {self.heads}.")
        return self


class Autoencoder(BuiltIn):
    """Fully connected layers down to `code` numbers and back: answers with the row itself."""

    learns: ClassVar[Task | None] = "reconstruction"
    does: ClassVar[tuple[Task, ...]] = ("reconstruction",)
    architecture: Literal["autoencoder"]
    hidden: tuple[Width, ...] = Field((128,), max_length=64)
    code: Width = 16
    activation: Activation = "relu"


class WorkloadModel(ModelSection):
    """A registered workload's own model and loss; a request names it and never carries code."""

    learns: ClassVar[Task | None] = None
    architecture: Literal["workload"]
    workload: Name
    options: Options = Field(default_factory=dict)


Model = Annotated[
    Linear | Mlp | Cnn | ResNet | Transformer | Autoencoder | WorkloadModel, Field(discriminator="architecture")
]

BUILT_IN: tuple[type[BuiltIn], ...] = tuple(kind for kind in get_args(get_args(Model)[0]) if issubclass(kind, BuiltIn))
"""Every model of ours."""
