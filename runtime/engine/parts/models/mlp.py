"""Fully connected layers."""

from __future__ import annotations

from torch import nn

from contracts.request.model import Mlp
from runtime.engine.facts import Facts
from runtime.engine.kinds import models
from runtime.engine.standard import ACTIVATIONS, flat_width, framed


@models.part(Mlp)
def build(options: Mlp, facts: Facts) -> nn.Module:
    """Rows flattened, then layer, activation and dropout for each width, then the answer."""
    layers: list[nn.Module] = [nn.Flatten()]
    width = flat_width(facts)
    for wanted in options.hidden:
        layers += [nn.Linear(width, wanted), ACTIVATIONS[options.activation]()]
        layers += [nn.Dropout(options.dropout)] if options.dropout else []
        width = wanted
    return framed(nn.Sequential(*layers, nn.Linear(width, facts.outputs)), facts, standardize=options.standardize)
