"""Images mirrored."""

from __future__ import annotations

import torch
from torch import Tensor

from contracts.request.augment import Flip
from runtime.engine.draws import Draws
from runtime.engine.kinds import Spread, augmentations


@augmentations.part(Flip)
def flip(options: Flip, x: Tensor, draws: Draws, usual: Spread) -> Tensor:
    """Each row by a coin of its own."""
    mirrored = x.flip(-1 if options.axis == "horizontal" else -2)
    return torch.where(draws.uniform().reshape(-1, 1, 1, 1) < options.share, mirrored, x)
