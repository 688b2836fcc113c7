"""Residual networks for images."""

from __future__ import annotations

from torch import Tensor, nn

from contracts.request.model import ResNet
from runtime.engine.facts import Facts
from runtime.engine.kinds import models
from runtime.engine.standard import Pooled, framed, image_shape

LARGE = 64
"""From this side on, an image is halved twice before the first stage, as photographs are."""


class Block(nn.Module):
    """Two convolutions beside a way around them."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Sequential(*_convolution(channels, width, stride), nn.ReLU())
        self.second = nn.Sequential(*_convolution(width, width, 1))
        same = stride == 1 and channels == width
        around = [nn.Conv2d(channels, width, 1, stride=stride, bias=False), nn.BatchNorm2d(width)]
        self.around = nn.Identity() if same else nn.Sequential(*around)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.relu(self.second(self.first(x)) + self.around(x))
        return answer


@models.part(ResNet)
def build(options: ResNet, facts: Facts) -> nn.Module:
    """Every stage but the first begins by halving the plane, while that is at least 4 wide."""
    channels, *plane = image_shape(facts)
    layers = [*_convolution(channels, options.width, 2 if min(plane) >= LARGE else 1), nn.ReLU()]
    if min(plane) >= LARGE:
        layers.append(nn.MaxPool2d(3, stride=2, padding=1))
    side = min(plane) // 4 if min(plane) >= LARGE else min(plane)
    width = options.width
    for stage, blocks in enumerate(options.blocks):
        wanted = options.width << stage
        stride = 2 if stage and side >= 4 else 1
        layers += [Block(width, wanted, stride), *(Block(wanted, wanted, 1) for _ in range(blocks - 1))]
        width, side = wanted, side // stride
    layers.append(Pooled())
    layers += [nn.Dropout(options.dropout)] if options.dropout else []
    return framed(nn.Sequential(*layers, nn.Linear(width, facts.outputs)), facts, standardize=options.standardize)


def _convolution(channels: int, width: int, stride: int) -> list[nn.Module]:
    return [nn.Conv2d(channels, width, 3, stride=stride, padding=1, bias=False), nn.BatchNorm2d(width)]
