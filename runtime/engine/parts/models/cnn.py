"""A small convolutional network for images."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from contracts.request.model import Cnn
from runtime.engine.facts import Facts
from runtime.engine.kinds import models
from runtime.engine.standard import framed, image_shape


class Pooled(nn.Module):
    """The mean over the image's plane; adaptive pooling has no deterministic backward on CUDA."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.mean(x, dim=(2, 3))


@models.part(Cnn)
def build(options: Cnn, facts: Facts) -> nn.Module:
    """For each width a 3x3 convolution, batch norm, relu, and a halving pool while the plane is at least 4 wide."""
    channels, *plane = image_shape(facts)
    layers: list[nn.Module] = []
    for wanted in options.channels:
        layers += [nn.Conv2d(channels, wanted, 3, padding=1, bias=False), nn.BatchNorm2d(wanted), nn.ReLU()]
        if min(plane) >= 4:
            layers.append(nn.MaxPool2d(2))
            plane = [side // 2 for side in plane]
        channels = wanted
    layers += [Pooled(), nn.Linear(channels, channels), nn.ReLU()]
    layers += [nn.Dropout(options.dropout)] if options.dropout else []
    return framed(nn.Sequential(*layers, nn.Linear(channels, facts.outputs)), facts, standardize=options.standardize)
