"""What is done to gradients before they are clipped and used. The arithmetic is in the engine, one part per filter."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from contracts.request.section import Real, Section


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
