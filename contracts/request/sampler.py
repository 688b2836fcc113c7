"""Which rows come when, and how chance changes them. The engine has one part for each choice."""

from typing import Annotated, Literal

from pydantic import Field

from contracts.request.section import Name, Real, Section, Whole

Repeats = Annotated[Whole, Field(ge=0, le=1_000_000)]


class Uniform(Section):
    """Every row once per epoch, in an order of chance."""

    type: Literal["uniform"] = "uniform"


class Weighted(Section):
    """A row comes as often as `repeats` has it for its value in `column`; without `repeats` as often as the value says.

    An epoch still is as many rows as the training split has.
    """

    type: Literal["weighted"]
    column: Name = "y"
    repeats: tuple[Repeats, ...] = Field((), max_length=100_000)


class Balanced(Section):
    """The values of `column` take turns, so that each comes equally often; rare rows come again sooner."""

    type: Literal["balanced"]
    column: Name = "y"


class Grouped(Section):
    """Rows with the same value in `column` come one after another; groups, and rows within them, by chance."""

    type: Literal["grouped"]
    column: Name = "y"


class Curriculum(Section):
    """Begins with easy rows: the share `start` of them, in the order of `column`, small values or short rows first.

    `widen` of all rows are added each time that the control metric has not got better by more than `min_delta` for more
    than `patience` evaluations, until all come. An epoch still is as many rows as the training split has.
    """

    type: Literal["curriculum"]
    column: Name
    start: Real = Field(0.25, gt=0, le=1)
    widen: Real = Field(0.25, ge=0.01, le=1)
    patience: Whole = Field(1, ge=0, le=1_000_000)
    min_delta: Real = Field(0.0, ge=0, le=1e9)


Sampler = Annotated[Uniform | Weighted | Balanced | Grouped | Curriculum, Field(discriminator="type")]


Share = Annotated[Real, Field(gt=0, le=1)]
"""The probability with which a row, or one of its numbers, is changed."""


class Noise(Section):
    """Adds noise to every number: bell-shaped, `scale` times as wide as the feature or channel spreads."""

    type: Literal["noise"]
    scale: Real = Field(0.1, gt=0, le=100)


class Drop(Section):
    """Puts the feature's or channel's mean in the place of a number, with the probability `share` for each."""

    type: Literal["drop"]
    share: Share = 0.1


class Jitter(Section):
    """Makes a whole row brighter by up to `brightness` spreads, and its contrast up to `contrast` times larger."""

    type: Literal["jitter"]
    brightness: Real = Field(0.2, ge=0, le=10)
    contrast: Real = Field(0.2, ge=0, lt=1)


class Shift(Section):
    """Moves an image by up to `pixels` up or down and to a side; its border goes on into what becomes free."""

    type: Literal["shift"]
    pixels: Whole = Field(1, ge=1, le=1024)


class Flip(Section):
    """Mirrors an image with the probability `share`: left and right, or up and down."""

    type: Literal["flip"]
    axis: Literal["horizontal", "vertical"] = "horizontal"
    share: Share = 0.5


class Erase(Section):
    """Puts the channel's mean in the place of a square of `pixels` by `pixels`, with the probability `share`."""

    type: Literal["erase"]
    pixels: Whole = Field(2, ge=1, le=1024)
    share: Share = 0.5


Augment = Annotated[Noise | Drop | Jitter | Shift | Flip | Erase, Field(discriminator="type")]
"""One change; a request has any number of them, applied in order to the column `x` of the training split."""

OF_IMAGES = (Shift, Flip, Erase)
"""Those that need rows of the shape (channels, height, width)."""
