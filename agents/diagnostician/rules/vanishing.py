"""The first layers receive next to no gradient while the last ones do, and nothing is learned. Advice only."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

from agents.diagnostician.evidence import Evidence, WindowEvidence
from agents.diagnostician.finding import RuleFinding


@dataclass(frozen=True)
class Vanishing:
    """Fires when over `windows` windows the first layer's gradient is tiny, in itself and beside the last layer's."""

    name: str = "vanishing"
    windows: int = 3
    ratio: float = 1e-3
    size: float = 1e-4
    learned: float = 0.7

    def look(self, seen: Evidence) -> RuleFinding | None:
        """Compare the first layer with the last."""
        recent = seen.windows[-self.windows :]
        if seen.newest != "window" or len(recent) < self.windows or seen.initial is None:
            return None
        if not all(one.finite and len(one.layers) > 1 for one in recent) or recent[-1].median < self._known(seen):
            return None
        first, last = _gradient(recent, 0), _gradient(recent, -1)
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
            tuple(one.id for one in recent),
            {"gradient_first": first, "gradient_last": last, "loss": recent[-1].median, "initial_loss": seen.initial},
        )

    def _known(self, seen: Evidence) -> float:
        initial = seen.initial or 0.0
        return initial - (1 - self.learned) * abs(initial)


def _gradient(windows: tuple[WindowEvidence, ...], at: int) -> float:
    return median(one.layers[at].gradient for one in windows)
