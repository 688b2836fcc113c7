"""Rules about a training that diverges: values that are no numbers any more, and a loss that leaves its range."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import takewhile
from statistics import median

from agents.diagnostician.evidence import Evidence, Remedy, RuleFinding, WindowEvidence

LOWER = "Lower optimizer.learning_rate or set training.grad_clip; with diagnosis.auto_fix this is done for you."


@dataclass(frozen=True)
class NonFinite:
    """Fires at the first window or evaluation that holds NaN or infinity.

    Weights do not come back from that by themselves: the remedy goes back to where numbers were numbers.
    """

    name: str = "non_finite"

    def look(self, seen: Evidence) -> RuleFinding | None:
        """The finding for the newest window or evaluation when it is not finite; None else."""
        if seen.newest == "window" and seen.latest and not seen.latest.finite:
            return self._in_window(seen, seen.latest)
        if seen.newest != "evaluation" or math.isfinite(seen.evaluations[-1].loss):
            return None
        evaluation = seen.evaluations[-1]
        first = seen.latest.first if seen.latest else seen.begins
        return RuleFinding(
            self.name,
            "critical",
            first,
            evaluation.step,
            f"The validation loss at step {evaluation.step} is {evaluation.loss}.",
            LOWER,
            tuple(id for id in (seen.latest.id if seen.latest else "", evaluation.id) if id),
            {"step": float(evaluation.step), "val_loss": evaluation.loss},
            _remedy(seen, first, evaluation.step),
        )

    def _in_window(self, seen: Evidence, window: WindowEvidence) -> RuleFinding:
        at = next((i for i, loss in enumerate(window.losses) if not math.isfinite(loss)), None)
        what, step = ("The gradient", window.last) if at is None else ("The loss", window.first + at + 1)
        message = f"{what} is not finite from step {step} on (window {window.first}..{window.last})."
        # A first loss that is no number means that the attempt before the window had already spoiled the weights.
        first, cure = window.first - 1 if at == 0 else window.first, LOWER
        if begins_so := step == 1 and at == 0:
            message = "The very first loss is not finite, before any step was taken."
            cure = "Look for empty or infinite values in the data, and at the initial weights; no learning rate helps."
        remedy = None if begins_so else _remedy(seen, first, step)
        figures = {"step": float(step), "gradient_norm": window.gradient_norm, "learning_rate": window.learning_rate}
        evidence = (window.id,)
        return RuleFinding(self.name, "critical", window.first, window.last, message, cure, evidence, figures, remedy)


def _remedy(seen: Evidence, first: int, step: int) -> Remedy:
    return Remedy.gentler(f"What was computed was not finite from step {step} on", seen.planned(first))


@dataclass(frozen=True)
class Exploding:
    """Fires when `windows` windows in a row are out of range; one that recovers is no problem.

    Out of range is: far above the loss of an untrained model; or above it after having learned; or above it with
    gradients a thousand times those before.
    """

    name: str = "exploding"
    windows: int = 2
    above: float = 3.0
    lost: float = 0.5
    norm: float = 1000.0

    def look(self, seen: Evidence) -> RuleFinding | None:
        """Go back to before the first window that is out of range."""
        initial = seen.initial
        if seen.newest != "window" or initial is None:
            return None
        out = list(takewhile(lambda window: self._is_out(seen, window, initial), reversed(seen.windows)))
        if len(out) < self.windows:
            return None
        first, last = out[-1], out[0]
        return RuleFinding(
            self.name,
            "critical",
            first.first,
            last.last,
            f"The training loss has grown to {last.median:.4g} (median of steps {last.first}..{last.last}); it was"
            f" {initial:.4g} before any training and {last.lowest:.4g} at its lowest.",
            "Lower optimizer.learning_rate, lengthen schedule.warmup_steps, or set training.grad_clip.",
            tuple(window.id for window in reversed(out)),
            {
                "loss": last.median,
                "initial_loss": initial,
                "lowest_loss": last.lowest,
                "gradient_norm": last.gradient_norm,
                "learning_rate": last.learning_rate,
            },
            Remedy.gentler(f"The loss left its range after step {first.first}", seen.planned(first.first)),
        )

    def _is_out(self, seen: Evidence, window: WindowEvidence, initial: float) -> bool:
        size = max(abs(initial), 0.1)
        if not window.finite or window.median > initial + self.above * size:
            return window.finite
        norms = [other.gradient_norm for other in seen.windows if other.last <= window.first]
        is_steep = len(norms) >= 4 and window.gradient_norm > self.norm * median(norms)
        has_learned = window.lowest < initial - self.lost * size
        return window.median > initial + self.lost * size and (has_learned or is_steep)
