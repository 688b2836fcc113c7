"""The linear and convolution layers that built-in models are made of; models say what they need, and build none."""

from __future__ import annotations

from torch import nn

from runtime.engine.kinds import LayerFactory, layers


class PlainLayers(LayerFactory):
    """Torch's own layers: every weight is a trained float32 of its own."""

    def linear(self, inputs: int, outputs: int) -> nn.Module:
        return nn.Linear(inputs, outputs)

    def convolution(self, inputs: int, outputs: int, size: int, *, stride: int = 1) -> nn.Module:
        return nn.Conv2d(inputs, outputs, size, stride=stride, padding=size // 2, bias=False)


layers.part("plain")(PlainLayers())
