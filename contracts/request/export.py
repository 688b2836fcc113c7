"""What the trained model is turned into when training is done."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import Field

from contracts.request.section import Section

Format = Literal["onnx", "safetensors", "pt2", "torchscript"]
Quantization = Literal["int8", "fp16"]
FORMATS: tuple[str, ...] = get_args(Format)
QUANTIZATIONS: tuple[str, ...] = get_args(Quantization)


class Export(Section):
    """Each format is exported once, and once more for each quantisation that it allows."""

    formats: tuple[Format, ...] = Field((), max_length=8)
    quantize: tuple[Quantization, ...] = Field((), max_length=8)
