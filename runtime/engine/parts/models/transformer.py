"""A small transformer, over tokens or over numbers in a row."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from contracts.request.model import Transformer
from runtime.engine.facts import Facts
from runtime.engine.kinds import models
from runtime.engine.standard import ACTIVATIONS, OfTokens, framed

WIDER = 4


class Tokens(nn.Module):
    """A vector for each token, and one for its place."""

    def __init__(self, vocabulary: int, length: int, options: Transformer) -> None:
        super().__init__()
        self.token = nn.Embedding(vocabulary, options.width)
        self.place = nn.Embedding(length, options.width)
        self.dropout = nn.Dropout(options.dropout)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.dropout(self.token(x) + self.place(torch.arange(x.shape[1], device=x.device)))
        return found


class Pieces(nn.Module):
    """A vector for each row of an image, or for each feature, and one for its place."""

    def __init__(self, shape: tuple[int, ...], options: Transformer) -> None:
        super().__init__()
        length, size = _cut(shape)
        self.piece = nn.Linear(size, options.width)
        self.place = nn.Embedding(length, options.width)
        self.dropout = nn.Dropout(options.dropout)

    def forward(self, x: Tensor) -> Tensor:
        pieces = x.transpose(1, 2).flatten(2) if x.dim() == 4 else x.reshape(len(x), x.shape[1], -1)
        found: Tensor = self.dropout(self.piece(pieces) + self.place(torch.arange(pieces.shape[1], device=x.device)))
        return found


class Block(nn.Module):
    """Attention, then a wider layer, each beside a way around it."""

    def __init__(self, options: Transformer, *, causal: bool) -> None:
        super().__init__()
        width = options.width
        self._heads, self._causal, self._dropout = options.heads, causal, options.dropout
        self.before = nn.LayerNorm(width)
        self.looks = nn.Linear(width, 3 * width)
        self.sees = nn.Linear(width, width)
        self.between = nn.LayerNorm(width)
        self.wide = nn.Linear(width, WIDER * width)
        self.activation = ACTIVATIONS[options.activation]()
        self.narrow = nn.Linear(WIDER * width, width)
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


class Mean(nn.Module):
    """The mean over all places."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(1)


@models.part(Transformer)
def build(options: Transformer, facts: Facts) -> nn.Module:
    """For sequences an answer at every place, else one for all of them."""
    causal = facts.task == "sequences"
    blocks = [Block(options, causal=causal) for _ in range(options.layers)]
    last = [nn.LayerNorm(options.width), nn.Linear(options.width, facts.outputs)]
    if causal:
        return OfTokens(nn.Sequential(Tokens(facts.outputs, facts.shape[0], options), *blocks, *last))
    body = nn.Sequential(Pieces(facts.shape, options), *blocks, Mean(), *last)
    return framed(body, facts, standardize=options.standardize)


def _cut(shape: tuple[int, ...]) -> tuple[int, int]:
    """How many pieces a row has, and how many numbers a piece."""
    if len(shape) == 3:
        return shape[1], shape[0] * shape[2]
    length, *sizes = shape or (1,)
    return length, torch.Size(sizes).numel()
