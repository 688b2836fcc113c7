"""Numbers left out here and there."""

from __future__ import annotations

import torch
from torch import Tensor

from contracts.request.augment import Drop
from runtime.engine.draws import Draws
from runtime.engine.kinds import Spread, augmentations


@augmentations.part(Drop)
def drop(options: Drop, x: Tensor, draws: Draws, usual: Spread) -> Tensor:
    """What is left out says nothing: it is the mean."""
    return torch.where(draws.uniform(x[0].numel()).reshape(x.shape) < options.share, usual.mean, x)
