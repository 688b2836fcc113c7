"""The training loss, still a number, leaves the range that any learning explains, and stays out of it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import takewhile
from statistics import median

from agents.diagnostician.evidence import Evidence, WindowEvidence
from agents.diagnostician.finding import Remedy, RuleFinding


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
    factor: float = 0.1
    clip: float = 1.0

    def look(self, seen: Evidence) -> RuleFinding | None:
        """Go back to before the first window that is out of range."""
        if seen.newest != "window" or seen.initial is None:
            return None
        out = list(takewhile(lambda one: one.finite and self._out(seen, one), reversed(seen.windows)))
        if len(out) < self.windows:
            return None
        first, last = out[-1], out[0]
        return RuleFinding(
            self.name,
            "critical",
            first.first,
            last.last,
            f"The training loss has grown to {last.median:.4g} (median of steps {last.first}..{last.last}); it was"
            f" {seen.initial:.4g} before any training and {last.lowest:.4g} at its lowest.",
            "Lower optimizer.learning_rate, lengthen schedule.warmup_steps, or set training.grad_clip.",
            tuple(one.id for one in reversed(out)),
            {
                "loss": last.median,
                "initial_loss": seen.initial,
                "lowest_loss": last.lowest,
                "gradient_norm": last.gradient_norm,
                "learning_rate": last.learning_rate,
            },
            self._remedy(seen, first),
        )

    def _out(self, seen: Evidence, one: WindowEvidence) -> bool:
        assert seen.initial is not None  # noqa: S101 - `look` asks only then
        size = max(abs(seen.initial), 0.1)
        if one.median > seen.initial + self.above * size:
            return True
        knew = one.lowest < seen.initial - self.lost * size
        return one.median > seen.initial + self.lost * size and (knew or self._steep(seen, one))

    def _steep(self, seen: Evidence, one: WindowEvidence) -> bool:
        before = [other.gradient_norm for other in seen.windows if other.last <= one.first]
        return len(before) >= 4 and one.gradient_norm > self.norm * median(before)

    def _remedy(self, seen: Evidence, first: WindowEvidence) -> Remedy:
        target = seen.planned(first.first)
        reason = (
            f"The loss left its range after step {first.first}; from step {target} again with {self.factor:g} of the"
            f" learning rate and gradients clipped at {self.clip:g}."
        )
        return Remedy(target, {"learning_rate": self.factor, "grad_clip": self.clip}, reason)
