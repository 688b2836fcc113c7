"""One linear layer."""

from __future__ import annotations

from torch import nn

from contracts.request.model import Linear
from runtime.engine.facts import Facts
from runtime.engine.kinds import models
from runtime.engine.standard import flat_width, framed


@models.part(Linear)
def build(options: Linear, facts: Facts) -> nn.Module:
    """Rows flattened, one layer."""
    return framed(
        nn.Sequential(nn.Flatten(), nn.Linear(flat_width(facts), facts.outputs)), facts, standardize=options.standardize
    )
