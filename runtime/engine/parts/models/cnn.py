"""A small convolutional network for images."""

from __future__ import annotations

from torch import nn

from contracts.request.model import Cnn
from runtime.engine.facts import Facts
from runtime.engine.kinds import models
from runtime.engine.standard import Pooled, framed, image_shape


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
