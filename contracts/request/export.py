"""What the trained model is turned into when training is done."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from contracts.request.section import Section


class Export(Section):
    """Each format is exported once, and once more for each quantisation that it allows."""

    formats: tuple[Literal["onnx", "safetensors", "pt2", "torchscript"], ...] = Field((), max_length=8)
    quantize: tuple[Literal["int8", "fp16"], ...] = Field((), max_length=8)
