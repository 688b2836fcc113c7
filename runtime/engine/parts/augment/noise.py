"""Noise on every number."""

from __future__ import annotations

from torch import Tensor

from contracts.request.augment import Noise
from runtime.engine.draws import Draws
from runtime.engine.kinds import Spread, augmentations


@augmentations.part(Noise)
def noise(options: Noise, x: Tensor, draws: Draws, usual: Spread) -> Tensor:
    """As wide as the training split's own spread has it."""
    return x + draws.bell(x[0].numel()).reshape(x.shape) * (usual.scale * options.scale)
