"""Built-in architectures; the frame around them (scaling in, units out) is in `wrappers`."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from contracts.request.model import Autoencoder, Cnn, Linear, Mlp, ResNet, Transformer
from runtime.engine.facts import Facts
from runtime.engine.kinds import LayerFactory, models
from runtime.engine.wrappers import (
    ACTIVATIONS,
    FeatureUnits,
    OfTokens,
    PlaneMean,
    flat_width,
    framed,
    image_shape,
    stored_as,
)


@models.part(Linear)
def linear(options: Linear, facts: Facts, make: LayerFactory) -> nn.Module:
    """One linear layer. Rows flattened, one layer."""
    return framed(
        nn.Sequential(nn.Flatten(), make.linear(flat_width(facts), facts.outputs)),
        facts,
        standardize=options.standardize,
    )


@models.part(Mlp)
def mlp(options: Mlp, facts: Facts, make: LayerFactory) -> nn.Module:
    """Fully connected layers. Rows flattened, then layer, activation and dropout for each width, then the answer."""
    layers: list[nn.Module] = [nn.Flatten()]
    width = flat_width(facts)
    for wanted in options.hidden:
        layers += [make.linear(width, wanted), ACTIVATIONS[options.activation]()]
        layers += [nn.Dropout(options.dropout)] if options.dropout else []
        width = wanted
    return framed(nn.Sequential(*layers, make.linear(width, facts.outputs)), facts, standardize=options.standardize)


@models.part(Autoencoder)
def autoencoder(options: Autoencoder, facts: Facts, make: LayerFactory) -> nn.Module:
    """Fully connected layers through a narrow place.

    Down through the hidden widths to the code, and back up through the same; the code and the answer are linear.
    """
    down = [flat_width(facts), *options.hidden, options.code]
    layers: list[nn.Module] = [nn.Flatten()]
    for widths in (down, down[::-1]):
        for narrow, wide in pairwise(widths):
            layers += [make.linear(narrow, wide), ACTIVATIONS[options.activation]()]
        layers.pop()
    body = nn.Sequential(*layers, nn.Unflatten(1, facts.shape))
    scaled = options.standardize and bool(facts.mean)
    answers = FeatureUnits(facts) if scaled else nn.Identity()
    return framed(body, facts, standardize=options.standardize, answers=answers)


@models.part(Cnn)
def cnn(options: Cnn, facts: Facts, make: LayerFactory) -> nn.Module:
    """A small convolutional network for images.

    For each width a 3x3 convolution, batch norm, relu, and a halving pool while the plane is at least 4 wide.
    """
    channels, *plane = image_shape(facts)
    layers: list[nn.Module] = []
    for wanted in options.channels:
        layers += [make.convolution(channels, wanted, 3), nn.BatchNorm2d(wanted), nn.ReLU()]
        if min(plane) >= 4:
            layers.append(nn.MaxPool2d(2))
            plane = [side // 2 for side in plane]
        channels = wanted
    layers += [PlaneMean(), make.linear(channels, channels), nn.ReLU()]
    layers += [nn.Dropout(options.dropout)] if options.dropout else []
    return framed(nn.Sequential(*layers, make.linear(channels, facts.outputs)), facts, standardize=options.standardize)


LARGE = 64
"""From this side on, an image is halved twice before the first stage, as photographs are."""


@stored_as("runtime.engine.parts.models.resnet.Block")
class ResidualBlock(nn.Module):
    """Two convolutions beside a way around them."""

    def __init__(self, make: LayerFactory, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Sequential(*_convolution(make, channels, width, stride), nn.ReLU())
        self.second = nn.Sequential(*_convolution(make, width, width, 1))
        same = stride == 1 and channels == width
        around = [make.convolution(channels, width, 1, stride=stride), nn.BatchNorm2d(width)]
        self.around = nn.Identity() if same else nn.Sequential(*around)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.relu(self.second(self.first(x)) + self.around(x))
        return answer


@models.part(ResNet)
def resnet(options: ResNet, facts: Facts, make: LayerFactory) -> nn.Module:
    """Residual networks for images.

    Every stage but the first begins by halving the plane, while that is at least 4 wide.
    """
    channels, *plane = image_shape(facts)
    layers = [*_convolution(make, channels, options.width, 2 if min(plane) >= LARGE else 1), nn.ReLU()]
    if min(plane) >= LARGE:
        layers.append(nn.MaxPool2d(3, stride=2, padding=1))
    side = min(plane) // 4 if min(plane) >= LARGE else min(plane)
    width = options.width
    for stage, blocks in enumerate(options.blocks):
        wanted = options.width << stage
        stride = 2 if stage and side >= 4 else 1
        layers += [
            ResidualBlock(make, width, wanted, stride),
            *(ResidualBlock(make, wanted, wanted, 1) for _ in range(blocks - 1)),
        ]
        width, side = wanted, side // stride
    layers.append(PlaneMean())
    layers += [nn.Dropout(options.dropout)] if options.dropout else []
    return framed(nn.Sequential(*layers, make.linear(width, facts.outputs)), facts, standardize=options.standardize)


def _convolution(make: LayerFactory, channels: int, width: int, stride: int) -> list[nn.Module]:
    return [make.convolution(channels, width, 3, stride=stride), nn.BatchNorm2d(width)]


WIDER = 4


@stored_as("runtime.engine.parts.models.transformer.Tokens")
class TokenEmbedding(nn.Module):
    """A vector for each token, and one for its place."""

    def __init__(self, vocabulary: int, length: int, options: Transformer) -> None:
        super().__init__()
        self.token = nn.Embedding(vocabulary, options.width)
        self.place = nn.Embedding(length, options.width)
        self.dropout = nn.Dropout(options.dropout)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.dropout(self.token(x) + self.place(torch.arange(x.shape[1], device=x.device)))
        return found


@stored_as("runtime.engine.parts.models.transformer.Pieces")
class Pieces(nn.Module):
    """A vector for each row of an image, or for each feature, and one for its place."""

    def __init__(self, make: LayerFactory, shape: tuple[int, ...], options: Transformer) -> None:
        super().__init__()
        length, size = _cut(shape)
        self.piece = make.linear(size, options.width)
        self.place = nn.Embedding(length, options.width)
        self.dropout = nn.Dropout(options.dropout)

    def forward(self, x: Tensor) -> Tensor:
        pieces = x.transpose(1, 2).flatten(2) if x.dim() == 4 else x.reshape(len(x), x.shape[1], -1)
        found: Tensor = self.dropout(self.piece(pieces) + self.place(torch.arange(pieces.shape[1], device=x.device)))
        return found


@stored_as("runtime.engine.parts.models.transformer.Block")
class AttentionBlock(nn.Module):
    """Attention, then a wider layer, each beside a way around it."""

    def __init__(self, make: LayerFactory, options: Transformer, *, causal: bool) -> None:
        super().__init__()
        width = options.width
        self._heads, self._causal, self._dropout = options.heads, causal, options.dropout
        self.before = nn.LayerNorm(width)
        self.looks = make.linear(width, 3 * width)
        self.sees = make.linear(width, width)
        self.between = nn.LayerNorm(width)
        self.wide = make.linear(width, WIDER * width)
        self.activation = ACTIVATIONS[options.activation]()
        self.narrow = make.linear(WIDER * width, width)
        self.dropout = nn.Dropout(options.dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.dropout(self.sees(self._attention(self.before(x))))
        found: Tensor = x + self.dropout(self.narrow(self.activation(self.wide(self.between(x)))))
        return found

    def _attention(self, x: Tensor) -> Tensor:
        rows, length, width = x.shape
        heads = self.looks(x).reshape(rows, length, 3, self._heads, width // self._heads).permute(2, 0, 3, 1, 4)
        asked, offered, told = heads.unbind(0)
        dropout = self._dropout if self.training else 0.0
        seen = functional.scaled_dot_product_attention(asked, offered, told, dropout_p=dropout, is_causal=self._causal)
        return seen.transpose(1, 2).reshape(rows, length, width)


@stored_as("runtime.engine.parts.models.transformer.Mean")
class MeanOverPlaces(nn.Module):
    """The mean over all places."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(1)


@models.part(Transformer)
def transformer(options: Transformer, facts: Facts, make: LayerFactory) -> nn.Module:
    """A small transformer, over tokens or over numbers in a row.

    For sequences an answer at every place, else one for all of them.
    """
    causal = facts.task == "sequences"
    blocks = [AttentionBlock(make, options, causal=causal) for _ in range(options.layers)]
    last = [nn.LayerNorm(options.width), make.linear(options.width, facts.outputs)]
    if causal:
        return OfTokens(nn.Sequential(TokenEmbedding(facts.outputs, facts.shape[0], options), *blocks, *last))
    body = nn.Sequential(Pieces(make, facts.shape, options), *blocks, MeanOverPlaces(), *last)
    return framed(body, facts, standardize=options.standardize)


def _cut(shape: tuple[int, ...]) -> tuple[int, int]:
    """How many pieces a row has, and how many numbers a piece."""
    if len(shape) == 3:
        return shape[1], shape[0] * shape[2]
    length, *sizes = shape or (1,)
    return length, torch.Size(sizes).numel()
