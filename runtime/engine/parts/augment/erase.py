"""Squares of images taken out."""

from __future__ import annotations

import torch
from torch import Tensor

from contracts.request.augment import Erase
from runtime.engine.draws import Draws
from runtime.engine.kinds import Spread, augmentations


@augmentations.part(Erase)
def erase(options: Erase, x: Tensor, draws: Draws, usual: Spread) -> Tensor:
    """The square may begin outside, so that borders are not spared."""
    _, _, height, width = x.shape
    taken = draws.uniform().reshape(-1, 1, 1, 1) < options.share
    top, left = (draws.below(length + options.pixels - 1) - options.pixels + 1 for length in (height, width))
    lines = _within(torch.arange(height, device=x.device), top, options.pixels)[:, None, :, None]
    places = _within(torch.arange(width, device=x.device), left, options.pixels)[:, None, None, :]
    return torch.where(taken & lines & places, usual.mean, x)


def _within(places: Tensor, begins: Tensor, length: int) -> Tensor:
    from_there = places - begins[:, None]
    return (from_there >= 0) & (from_there < length)
