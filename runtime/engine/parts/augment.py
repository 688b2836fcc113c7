"""How rows are changed by chance before they are trained on; every draw is keyed by its row."""

from __future__ import annotations

import torch
from torch import Tensor

from contracts.request.sampler import Drop, Erase, Flip, Jitter, Noise, Shift
from runtime.engine.draws import Draws
from runtime.engine.kinds import Spread, augmentations


@augmentations.part(Flip)
def flip(options: Flip, x: Tensor, draws: Draws, usual: Spread) -> Tensor:
    """Images mirrored. Each row by a coin of its own."""
    mirrored = x.flip(-1 if options.axis == "horizontal" else -2)
    return torch.where(draws.uniform().reshape(-1, 1, 1, 1) < options.share, mirrored, x)


@augmentations.part(Shift)
def shift(options: Shift, x: Tensor, draws: Draws, usual: Spread) -> Tensor:
    """Images moved by a few pixels. Each row by its own distance in both directions."""
    rows, _, height, width = x.shape
    down, right = (draws.below(2 * options.pixels + 1) - options.pixels for _ in range(2))
    lines = (torch.arange(height, device=x.device) - down[:, None]).clamp_(0, height - 1)
    places = (torch.arange(width, device=x.device) - right[:, None]).clamp_(0, width - 1)
    at = torch.arange(rows, device=x.device)[:, None, None]
    return x.permute(0, 2, 3, 1)[at, lines[:, :, None], places[:, None, :]].permute(0, 3, 1, 2).contiguous()


@augmentations.part(Erase)
def erase(options: Erase, x: Tensor, draws: Draws, usual: Spread) -> Tensor:
    """Squares of images taken out. The square may begin outside, so that borders are not spared."""
    _, _, height, width = x.shape
    taken = draws.uniform().reshape(-1, 1, 1, 1) < options.share
    top, left = (draws.below(length + options.pixels - 1) - options.pixels + 1 for length in (height, width))
    lines = _within(torch.arange(height, device=x.device), top, options.pixels)[:, None, :, None]
    places = _within(torch.arange(width, device=x.device), left, options.pixels)[:, None, None, :]
    return torch.where(taken & lines & places, usual.mean, x)


def _within(places: Tensor, begins: Tensor, length: int) -> Tensor:
    from_there = places - begins[:, None]
    return (from_there >= 0) & (from_there < length)


@augmentations.part(Noise)
def noise(options: Noise, x: Tensor, draws: Draws, usual: Spread) -> Tensor:
    """Noise on every number. As wide as the training split's own spread has it."""
    return x + draws.bell(x[0].numel()).reshape(x.shape) * (usual.scale * options.scale)


@augmentations.part(Drop)
def drop(options: Drop, x: Tensor, draws: Draws, usual: Spread) -> Tensor:
    """Numbers left out here and there. What is left out says nothing: it is the mean."""
    return torch.where(draws.uniform(x[0].numel()).reshape(x.shape) < options.share, usual.mean, x)


@augmentations.part(Jitter)
def jitter(options: Jitter, x: Tensor, draws: Draws, usual: Spread) -> Tensor:
    """Brightness and contrast of whole rows. One factor and one shift for each row, around the mean."""
    both = (draws.uniform(2) * 2 - 1).reshape(len(x), 2, *[1] * (x.dim() - 1))
    factor, moved = 1 + both[:, 0] * options.contrast, both[:, 1] * options.brightness
    return usual.mean + (x - usual.mean) * factor + usual.scale * moved
