"""Rules about layers through which nothing passes: dead layers, dead units, gradients that vanish on their way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan
from statistics import median

from agents.diagnostician.evidence import Evidence, Remedy, RuleFinding, WindowEvidence


@dataclass(frozen=True)
class DeadLayer:
    """Fires when in each of `windows` windows in a row a layer's units were silent, or no gradient came to it.

    Then no gradient will ever change that. A model that learns all the same is left alone.
    """

    name: str = "dead_layer"
    windows: int = 3
    share: float = 0.95
    learned: float = 0.7

    def look(self, seen: Evidence) -> RuleFinding | None:
        """The first such layer as a finding."""
        recent = seen.finite_windows(self.windows)
        if not recent:
            return None
        blocked = [{layer.name for layer in window.layers if layer.gradient == 0.0} for window in recent]
        dead = [layer for layer, share in least_silent(recent).items() if share >= self.share]
        dead += [layer.name for layer in recent[-1].layers if all(layer.name in names for names in blocked)]
        if not dead or seen.has_learned(self.learned):
            return None
        first, last = recent[0], recent[-1]
        why = f"Nothing passed through {dead[0]!r} after step {first.last}"
        return RuleFinding(
            self.name,
            "critical",
            first.first,
            last.last,
            f"Nothing passes through {dead[0]!r} since step {first.last} at the latest: its units, or those behind"
            " it, are dead.",
            "Lower optimizer.learning_rate, set training.grad_clip, or choose model.activation gelu, which cannot die.",
            tuple(window.id for window in recent),
            {"loss": last.median, "initial_loss": seen.initial or 0.0, "gradient_norm": last.gradient_norm},
            Remedy.gentler(why, seen.planned(first.first)),
        )


@dataclass(frozen=True)
class DeadUnits:
    """Fires when more than `share` of a layer's units were silent at the end of each of `windows` windows in a row.

    What they could have learned is lost. Advice only.
    """

    name: str = "dead_units"
    windows: int = 3
    share: float = 0.5

    def look(self, seen: Evidence) -> RuleFinding | None:
        """The layer with the largest share of dead units as a finding, when that share is above the limit."""
        recent = seen.finite_windows(self.windows)
        silent = least_silent(recent)
        name, worst = max(silent.items(), key=lambda item: item[1], default=("", 0.0))
        if not recent or worst <= self.share:
            return None
        return RuleFinding(
            self.name,
            "warning",
            recent[0].first,
            recent[-1].last,
            f"{worst:.0%} of the units of {name!r} were silent for a whole batch in {self.windows} windows in a row.",
            "Lower optimizer.learning_rate, or choose model.activation gelu, which cannot die.",
            tuple(window.id for window in recent),
            {f"dead:{layer}": share for layer, share in silent.items() if share > self.share},
        )


def least_silent(windows: Sequence[WindowEvidence]) -> dict[str, float]:
    """The smallest share of silent units that each layer had in these windows."""
    shares: dict[str, float] = {}
    for window in windows:
        for layer in window.layers:
            dead = 0.0 if layer.dead is None or isnan(layer.dead) else layer.dead
            shares[layer.name] = min(shares.get(layer.name, 1.0), dead)
    return shares


@dataclass(frozen=True)
class Vanishing:
    """Fires when over `windows` windows the first layer's gradient is tiny, in itself and beside the last layer's.

    Then nothing is learned. Advice only.
    """

    name: str = "vanishing"
    windows: int = 3
    ratio: float = 1e-3
    size: float = 1e-4
    learned: float = 0.7

    def look(self, seen: Evidence) -> RuleFinding | None:
        """Compare the first layer with the last."""
        recent = seen.finite_windows(self.windows)
        if not recent or seen.initial is None or seen.has_learned(self.learned):
            return None
        if not all(len(window.layers) > 1 for window in recent):
            return None
        first, last = (median(window.layers[at].gradient for window in recent) for at in (0, -1))
        if not (first < self.size and first < self.ratio * last):
            return None
        name = recent[-1].layers[0].name
        return RuleFinding(
            self.name,
            "warning",
            recent[0].first,
            recent[-1].last,
            f"The gradient of {name!r} is {first:.2g}, that of the last layer {last:.2g}: the first learn nothing.",
            "Use fewer layers, the activation relu or gelu, or a model with normalisation.",
            tuple(window.id for window in recent),
            {"gradient_first": first, "gradient_last": last, "loss": recent[-1].median, "initial_loss": seen.initial},
        )
