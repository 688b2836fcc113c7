"""Images moved by a few pixels."""

from __future__ import annotations

import torch
from torch import Tensor

from contracts.request.augment import Shift
from runtime.engine.draws import Draws
from runtime.engine.kinds import Spread, augmentations


@augmentations.part(Shift)
def shift(options: Shift, x: Tensor, draws: Draws, usual: Spread) -> Tensor:
    """Each row by its own distance in both directions."""
    rows, _, height, width = x.shape
    down, right = (draws.below(2 * options.pixels + 1) - options.pixels for _ in range(2))
    lines = (torch.arange(height, device=x.device) - down[:, None]).clamp_(0, height - 1)
    places = (torch.arange(width, device=x.device) - right[:, None]).clamp_(0, width - 1)
    at = torch.arange(rows, device=x.device)[:, None, None]
    return x.permute(0, 2, 3, 1)[at, lines[:, :, None], places[:, None, :]].permute(0, 3, 1, 2).contiguous()
