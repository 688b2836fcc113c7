"""Most units of a layer answer to no row of a batch; when nearly all are and nothing is learned, hope is gone."""

from __future__ import annotations

from dataclasses import dataclass
from math import isnan

from agents.diagnostician.evidence import Evidence, Stretch
from agents.diagnostician.finding import Finding, Remedy


@dataclass(frozen=True)
class DeadUnits:
    """Fires when more than `share` of a layer's units were silent at the end of each of `windows` windows in a row."""

    name: str = "dead_units"
    windows: int = 3
    share: float = 0.5
    hopeless: float = 0.95
    learned: float = 0.7
    factor: float = 0.1
    clip: float = 1.0

    def look(self, seen: Evidence) -> Finding | None:
        """Name the worst layer; with hardly a living unit hardly a gradient passes, so only going back helps."""
        recent = seen.windows[-self.windows :]
        if seen.newest != "window" or len(recent) < self.windows or not all(one.finite for one in recent):
            return None
        silent: dict[str, float] = {}
        for one in recent:
            for layer in one.layers:
                dead = 0.0 if layer.dead is None or isnan(layer.dead) else layer.dead
                silent[layer.name] = min(silent.get(layer.name, 1.0), dead)
        name, worst = max(silent.items(), key=lambda one: one[1], default=("", 0.0))
        if worst <= self.share:
            return None
        return Finding(
            self.name,
            "critical" if worst >= self.hopeless else "warning",
            recent[0].first,
            recent[-1].last,
            f"{worst:.0%} of the units of {name!r} were silent for a whole batch in {self.windows} windows in a row.",
            "Lower optimizer.learning_rate, or choose model.activation gelu, which cannot die.",
            tuple(one.id for one in recent),
            {f"dead:{layer}": share for layer, share in silent.items() if share > self.share},
            self._remedy(seen, name, recent) if worst >= self.hopeless else None,
        )

    def _remedy(self, seen: Evidence, layer: str, recent: tuple[Stretch, ...]) -> Remedy | None:
        initial = seen.initial or 0.0
        if recent[-1].median < initial - (1 - self.learned) * abs(initial):
            return None
        target = seen.planned(recent[0].first)
        reason = (
            f"Hardly a unit of {layer!r} was alive after step {recent[0].last}; from step {target} again with"
            f" {self.factor:g} of the learning rate and gradients clipped at {self.clip:g}."
        )
        return Remedy(target, {"learning_rate": self.factor, "grad_clip": self.clip}, reason)
