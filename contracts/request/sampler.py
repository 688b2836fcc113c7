"""How often and in what company rows come. Every choice is a function of the step; the engine has one part each."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from contracts.request.section import Name, Section, Whole

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


Sampler = Annotated[Uniform | Weighted | Balanced | Grouped, Field(discriminator="type")]
