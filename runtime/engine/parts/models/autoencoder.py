"""Fully connected layers through a narrow place."""

from __future__ import annotations

from itertools import pairwise

from torch import nn

from contracts.request.model import Autoencoder
from runtime.engine.facts import Facts
from runtime.engine.kinds import models
from runtime.engine.standard import ACTIVATIONS, Rebuilt, flat_width, framed


@models.part(Autoencoder)
def build(options: Autoencoder, facts: Facts) -> nn.Module:
    """Down through the hidden widths to the code, and back up through the same; the code and the answer are linear."""
    down = [flat_width(facts), *options.hidden, options.code]
    layers: list[nn.Module] = [nn.Flatten()]
    for widths in (down, down[::-1]):
        for narrow, wide in pairwise(widths):
            layers += [nn.Linear(narrow, wide), ACTIVATIONS[options.activation]()]
        layers.pop()
    body = nn.Sequential(*layers, nn.Unflatten(1, facts.shape))
    scaled = options.standardize and bool(facts.mean)
    answers = Rebuilt(facts) if scaled else nn.Identity()
    return framed(body, facts, standardize=options.standardize, answers=answers)
