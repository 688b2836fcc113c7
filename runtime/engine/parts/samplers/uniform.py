"""Every row once per epoch."""

from __future__ import annotations

from contracts.request.sampler import Uniform
from runtime.engine.order import Order
from runtime.engine.sampling import Rows, Sampler, samplers


@samplers.part(Uniform)
def build(options: Uniform, seed: int, rows: Rows) -> Sampler:
    """The order itself."""
    return Order(seed, rows.count)
