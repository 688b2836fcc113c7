"""Most units of a layer answer to no row of a batch: what they could have learned is lost. Advice only."""

from __future__ import annotations

from dataclasses import dataclass
from math import isnan

from agents.diagnostician.evidence import Evidence, WindowEvidence
from agents.diagnostician.finding import RuleFinding


@dataclass(frozen=True)
class DeadUnits:
    """Fires when more than `share` of a layer's units were silent at the end of each of `windows` windows in a row."""

    name: str = "dead_units"
    windows: int = 3
    share: float = 0.5

    def look(self, seen: Evidence) -> RuleFinding | None:
        """The layer with the largest share of dead units as a finding, when that share is above the limit."""
        recent = seen.windows[-self.windows :]
        if seen.newest != "window" or len(recent) < self.windows or not all(one.finite for one in recent):
            return None
        silent = least_silent(recent)
        name, worst = max(silent.items(), key=lambda one: one[1], default=("", 0.0))
        if worst <= self.share:
            return None
        return RuleFinding(
            self.name,
            "warning",
            recent[0].first,
            recent[-1].last,
            f"{worst:.0%} of the units of {name!r} were silent for a whole batch in {self.windows} windows in a row.",
            "Lower optimizer.learning_rate, or choose model.activation gelu, which cannot die.",
            tuple(one.id for one in recent),
            {f"dead:{layer}": share for layer, share in silent.items() if share > self.share},
        )


def least_silent(windows: tuple[WindowEvidence, ...]) -> dict[str, float]:
    """The smallest share of silent units that each layer had in these windows."""
    found: dict[str, float] = {}
    for one in windows:
        for layer in one.layers:
            dead = 0.0 if layer.dead is None or isnan(layer.dead) else layer.dead
            found[layer.name] = min(found.get(layer.name, 1.0), dead)
    return found
