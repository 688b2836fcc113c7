"""Nothing passes through a layer any more, and the model has learned nothing: no gradient will ever change that."""

from __future__ import annotations

from dataclasses import dataclass

from agents.diagnostician.evidence import Evidence, WindowEvidence
from agents.diagnostician.finding import Remedy, RuleFinding
from agents.diagnostician.rules.dead_units import least_silent


@dataclass(frozen=True)
class DeadLayer:
    """Fires when in each of `windows` windows in a row a layer's units were silent, or no gradient came to it."""

    name: str = "dead_layer"
    windows: int = 3
    share: float = 0.95
    learned: float = 0.7
    factor: float = 0.1
    clip: float = 1.0

    def look(self, seen: Evidence) -> RuleFinding | None:
        """Name the first such layer; a model that learns all the same is left alone."""
        recent = seen.windows[-self.windows :]
        if seen.newest != "window" or len(recent) < self.windows or not all(one.finite for one in recent):
            return None
        dead = [layer for layer, share in least_silent(recent).items() if share >= self.share] + _blocked(recent)
        initial = seen.initial or 0.0
        if not dead or recent[-1].median < initial - (1 - self.learned) * abs(initial):
            return None
        return RuleFinding(
            self.name,
            "critical",
            recent[0].first,
            recent[-1].last,
            f"Nothing passes through {dead[0]!r} since step {recent[0].last} at the latest: its units, or those behind"
            " it, are dead.",
            "Lower optimizer.learning_rate, set training.grad_clip, or choose model.activation gelu, which cannot die.",
            tuple(one.id for one in recent),
            {"loss": recent[-1].median, "initial_loss": initial, "gradient_norm": recent[-1].gradient_norm},
            self._remedy(seen, dead[0], recent),
        )

    def _remedy(self, seen: Evidence, layer: str, recent: tuple[WindowEvidence, ...]) -> Remedy:
        target = seen.planned(recent[0].first)
        reason = (
            f"Nothing passed through {layer!r} after step {recent[0].last}; from step {target} again with"
            f" {self.factor:g} of the learning rate and gradients clipped at {self.clip:g}."
        )
        return Remedy(target, {"learning_rate": self.factor, "grad_clip": self.clip}, reason)


def _blocked(windows: tuple[WindowEvidence, ...]) -> list[str]:
    """Layers that received no gradient at all in any of these windows, in the model's order."""
    blocked = [{layer.name for layer in one.layers if layer.gradient == 0.0} for one in windows]
    return [layer.name for layer in windows[-1].layers if all(layer.name in one for one in blocked)]
