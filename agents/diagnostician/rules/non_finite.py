"""A loss, a gradient or the control metric is no longer a number. Weights do not come back from that by themselves."""

from __future__ import annotations

import math
from dataclasses import dataclass

from agents.diagnostician.evidence import Evidence, WindowEvidence
from agents.diagnostician.finding import Remedy, RuleFinding


@dataclass(frozen=True)
class NonFinite:
    """Fires at the first window or evaluation that holds NaN or infinity."""

    name: str = "non_finite"
    factor: float = 0.1
    clip: float = 1.0

    def look(self, seen: Evidence) -> RuleFinding | None:
        """Go back to where numbers were numbers, with a smaller learning rate and clipped gradients."""
        if seen.newest == "window" and seen.latest and not seen.latest.finite:
            return self._in_window(seen, seen.latest)
        if seen.newest == "evaluation" and not math.isfinite(seen.evaluations[-1].loss):
            return self._in_evaluation(seen)
        return None

    def _in_window(self, seen: Evidence, window: WindowEvidence) -> RuleFinding:
        at = next((i for i, loss in enumerate(window.losses) if not math.isfinite(loss)), None)
        what, step = ("The gradient", window.last) if at is None else ("The loss", window.first + at + 1)
        # A first loss that is no number means that the attempt before the window had already spoiled the weights.
        first = window.first - 1 if at == 0 else window.first
        figures = {"step": float(step), "gradient_norm": window.gradient_norm, "learning_rate": window.learning_rate}
        if step == 1 and at == 0:
            return self._from_the_start(window, figures)
        return RuleFinding(
            self.name,
            "critical",
            window.first,
            window.last,
            f"{what} is not finite from step {step} on (window {window.first}..{window.last}).",
            "Lower optimizer.learning_rate or set training.grad_clip; with diagnosis.auto_fix this is done for you.",
            (window.id,),
            figures,
            self._remedy(seen, first, step),
        )

    def _from_the_start(self, window: WindowEvidence, figures: dict[str, float]) -> RuleFinding:
        return RuleFinding(
            self.name,
            "critical",
            window.first,
            window.last,
            "The very first loss is not finite, before any step was taken.",
            "Look for empty or infinite values in the data, and at the initial weights; no learning rate helps.",
            (window.id,),
            figures,
        )

    def _in_evaluation(self, seen: Evidence) -> RuleFinding:
        judged = seen.evaluations[-1]
        first = seen.latest.first if seen.latest else seen.begins
        return RuleFinding(
            self.name,
            "critical",
            first,
            judged.step,
            f"The validation loss at step {judged.step} is {judged.loss}.",
            "Lower optimizer.learning_rate or set training.grad_clip; with diagnosis.auto_fix this is done for you.",
            tuple(one for one in (seen.latest.id if seen.latest else "", judged.id) if one),
            {"step": float(judged.step), "val_loss": judged.loss},
            self._remedy(seen, first, judged.step),
        )

    def _remedy(self, seen: Evidence, first: int, step: int) -> Remedy:
        target = seen.planned(first)
        reason = (
            f"What was computed was not finite from step {step} on; from step {target} again with {self.factor:g} of"
            f" the learning rate and gradients clipped at {self.clip:g}."
        )
        return Remedy(target, {"learning_rate": self.factor, "grad_clip": self.clip}, reason)
