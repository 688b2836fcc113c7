"""Brightness and contrast of whole rows."""

from __future__ import annotations

from torch import Tensor

from contracts.request.augment import Jitter
from runtime.engine.draws import Draws
from runtime.engine.kinds import Spread, augmentations


@augmentations.part(Jitter)
def jitter(options: Jitter, x: Tensor, draws: Draws, usual: Spread) -> Tensor:
    """One factor and one shift for each row, around the mean."""
    both = (draws.uniform(2) * 2 - 1).reshape(len(x), 2, *[1] * (x.dim() - 1))
    factor, moved = 1 + both[:, 0] * options.contrast, both[:, 1] * options.brightness
    return usual.mean + (x - usual.mean) * factor + usual.scale * moved
