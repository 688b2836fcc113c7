"""Every row once per epoch."""

from __future__ import annotations

from contracts.request.sampler import Uniform
from runtime.engine.kinds import Rows, Sampler, samplers
from runtime.engine.order import Order


@samplers.part(Uniform)
def build(options: Uniform, seed: int, rows: Rows) -> Sampler:
    """The order itself."""
    return Order(seed, rows.count)
