"""How well rows were rebuilt, from what the task kept of each row."""

from __future__ import annotations

import math

from torch import Tensor

from runtime.engine.exact import total
from runtime.engine.kinds import Batch, metrics


@metrics.part("reconstruction_error")
def reconstruction_error(kept: Tensor, batch: Batch) -> float:
    """The root of the mean squared error, in deviations: always answering the mean costs 1."""
    return math.sqrt(total(kept.double().reshape(-1).tolist()) / len(kept))
