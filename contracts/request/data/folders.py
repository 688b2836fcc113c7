"""Images in folders, one folder per category."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from contracts.request.data.source import File, Task
from contracts.request.section import Real, Section, Whole

Side = Annotated[Whole, Field(ge=1, le=4096)]


class ImageQuality(Section):
    """What an image must have to be used; what falls short counts as broken. All are judged before it is resized.

    `min_side` in pixels; `min_sharpness` is the variance of the Laplacian of its grey values (0 to 255),
    `min_contrast` their standard deviation, `min_complexity` their entropy in bits (0 to 8).
    """

    min_side: Whole = Field(1, ge=1, le=100_000)
    min_sharpness: Real = Field(0.0, ge=0, le=1e6)
    min_contrast: Real = Field(0.0, ge=0, le=255)
    min_complexity: Real = Field(0.0, ge=0, le=8)


class ImageFolder(File):
    """Each folder in `path` is a category, each image in it a row of `height` x `width` pixels; needs the extra `data`.

    Images of another size are resized, and cropped at the centre where their sides have another ratio.
    """

    known_task: ClassVar[Task | None] = "classification"
    images: ClassVar[bool] = True
    source: Literal["image_folder"]
    height: Side = 32
    width: Side = 32
    colours: Literal["grey", "rgb"] = "rgb"
    quality: ImageQuality = ImageQuality()
