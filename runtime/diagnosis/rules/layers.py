"""Rules about layers: through which nothing passes, and of which answers or gradients are worth little."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import ClassVar

from runtime.diagnosis.evidence import Evidence, Remedy, Rule, RuleFinding, WindowEvidence, rule


@rule
@dataclass(frozen=True)
class DeadLayer(Rule):
    """Fires when in each of `windows` windows in a row a layer's units were silent, or no gradient came to it.

    Then no gradient will ever change that. A model that learns all the same is left alone.
    """

    name = "dead_layer"
    looks_at = "a layer of which all units are silent, or to which no gradient comes, in a model that has not learned"
    severity = "critical"
    cure = "Lower optimizer.learning_rate, set training.grad_clip, or choose model.activation gelu, which cannot die."
    edition = 1
    windows: int = 3
    share: float = 0.95
    learned: float = 0.7

    def look(self, seen: Evidence) -> RuleFinding | None:
        """The first such layer as a finding."""
        recent = seen.finite_windows(self.windows)
        if not recent or seen.has_learned(self.learned):
            return None
        blocked = [{layer.name for layer in window.layers if layer.gradient == 0.0} for window in recent]
        dead = [layer for layer, share in least_silent(recent).items() if share >= self.share]
        dead += [layer.name for layer in recent[-1].layers if all(layer.name in names for names in blocked)]
        if not dead:
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
            self.cure,
            tuple(window.id for window in recent),
            {"loss": last.median, "initial_loss": seen.initial or 0.0, "gradient_norm": last.gradient_norm},
            Remedy.gentler(why, seen.planned(first.first)),
        )


@rule
@dataclass(frozen=True)
class DeadUnits(Rule):
    """Fires when more than `share` of a layer's units were silent at the end of each of `windows` windows in a row.

    What they could have learned is lost. Advice only.
    """

    name = "dead_units"
    looks_at = "the share of a layer's units that are silent for a whole batch, over several windows"
    severity = "warning"
    cure = "Lower optimizer.learning_rate, or choose model.activation gelu, which cannot die."
    edition = 1
    windows: int = 3
    share: float = 0.5
    begins: float = 0.2
    harmless: float = 0.65
    burst: float = 20.0
    small: float = 0.002

    def look(self, seen: Evidence) -> RuleFinding | None:
        """The layer with the largest share of dead units as a finding, when that share is above the limit."""
        if seen.edition > 1 and seen.progress < self.begins:
            return None
        recent = seen.finite_windows(self.windows)
        if not recent or not any((layer.dead or 0.0) > self.share for layer in recent[-1].layers):
            return None
        silent = least_silent(recent)
        name, worst = max(silent.items(), key=lambda item: item[1], default=("", 0.0))
        if worst <= self.share:
            return None
        learns = seen.edition > 1 and seen.skill(recent[-1].mean) > self.harmless
        return RuleFinding(
            self.name,
            "note" if learns else "warning",
            recent[0].first,
            recent[-1].last,
            f"{worst:.0%} of the units of {name!r} were silent for a whole batch in {self.windows} windows in a row.",
            self.cure,
            tuple(window.id for window in recent),
            {f"dead:{layer}": share for layer, share in silent.items() if share > self.share},
            beside="non_finite" if seen.edition > 1 and self._outlasts(seen, recent) else "",
        )

    def _outlasts(self, seen: Evidence, recent: Sequence[WindowEvidence]) -> bool:
        """Whether the rate was far larger for a while, as recorded or as the schedule's phases have it."""
        phases = (seen.request.get("schedule") or {}).get("phases") or ()
        levels = [one.get("level", 0.0) for one in phases if isinstance(one, Mapping)]
        planned = seen.asked_float("optimizer", "learning_rate") * max(levels, default=0.0)
        largest = max(planned, *(window.learning_rate for window in seen.windows))
        passed = largest > self.burst * recent[-1].learning_rate
        return passed and median(window.ratio for window in recent) < self.small


def least_silent(windows: Sequence[WindowEvidence]) -> dict[str, float]:
    """The smallest share of silent units that each layer had in these windows."""
    shares: dict[str, float] = {}
    for window in windows:
        for layer in window.layers:
            dead = 0.0 if layer.dead is None or math.isnan(layer.dead) else layer.dead
            shares[layer.name] = min(shares.get(layer.name, 1.0), dead)
    return shares


@rule
@dataclass(frozen=True)
class Saturation(Rule):
    """Fires when most answers of a bounded activation lie at a bound in `windows` windows, and little is learned.

    There the gradient is next to nothing.
    """

    name = "saturation"
    looks_at = "the share of a bounded activation's answers that lie at a bound"
    severity = "warning"
    cure = (
        "Lower optimizer.learning_rate, scale the inputs (model.standardize), or choose model.activation relu or gelu."
    )
    windows: ClassVar[int] = 2
    share: ClassVar[float] = 0.5
    learned: ClassVar[float] = 0.6

    def look(self, seen: Evidence) -> RuleFinding | None:
        """The layer with the largest share."""
        recent = seen.finite_windows(self.windows)
        if not recent or seen.skill(recent[-1].mean) > self.learned:
            return None
        shares = [(layer.saturated or 0.0, layer.name) for layer in recent[-1].layers]
        worst, name = max(shares, default=(0.0, ""))
        before = next((layer.saturated or 0.0 for layer in recent[0].layers if layer.name == name), 0.0)
        if min(worst, before) < self.share:
            return None
        message = (
            f"{worst:.0%} of the answers behind {name!r} lie at a bound of its activation, where gradients vanish."
        )
        return self.finding(
            seen, message, recent, figures={f"saturated:{layer}": share for share, layer in shares if share}
        )


@rule
@dataclass(frozen=True)
class Vanishing(Rule):
    """Fires when over `windows` windows the first layer's gradient is tiny, in itself and beside the last layer's.

    Then nothing is learned. Advice only.
    """

    name = "vanishing"
    looks_at = "the first layer's gradient, in itself and beside the last layer's, in a model that has not learned"
    severity = "warning"
    cure = "Use fewer layers, the activation relu or gelu, or a model with normalisation."
    edition = 1
    windows: int = 3
    ratio: float = 1e-3
    size: float = 1e-4
    learned: float = 0.7
    deep: int = 5
    fades: float = 0.04
    nothing: float = 0.1

    def _fades(self, seen: Evidence, layers: int, first: float, last: float) -> bool:
        """Whether in a deep model that has learned nothing little of the gradient comes to the first layer."""
        if seen.edition < 2 or seen.latest is None or layers < self.deep:
            return False
        return first < self.fades * last and seen.skill(seen.latest.mean) < self.nothing

    def look(self, seen: Evidence) -> RuleFinding | None:
        """Compare the first layer with the last."""
        recent = seen.finite_windows(self.windows)
        if not recent or seen.initial is None or seen.has_learned(self.learned):
            return None
        if not all(len(window.layers) > 1 for window in recent):
            return None
        first, last = (median(window.layers[at].gradient for window in recent) for at in (0, -1))
        if not (first < self.size and first < self.ratio * last) and not self._fades(
            seen, len(recent[-1].layers), first, last
        ):
            return None
        name = recent[-1].layers[0].name
        return RuleFinding(
            self.name,
            "warning",
            recent[0].first,
            recent[-1].last,
            f"The gradient of {name!r} is {first:.2g}, that of the last layer {last:.2g}: the first learn nothing.",
            self.cure,
            tuple(window.id for window in recent),
            {"gradient_first": first, "gradient_last": last, "loss": recent[-1].median, "initial_loss": seen.initial},
        )
