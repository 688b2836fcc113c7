"""Rules about numbers: those that are none, those that leave their range, and those that jump."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import takewhile
from statistics import median
from typing import ClassVar

from runtime.diagnosis.evidence import Evidence, Remedy, Rule, RuleFinding, WindowEvidence, rule

LOWER = "Lower optimizer.learning_rate or set training.grad_clip; with diagnosis.mode `fix` this is done for you."
TWO = ("window", "evaluation")


@rule
@dataclass(frozen=True)
class NonFinite(Rule):
    """Fires at the first window or evaluation that holds NaN or infinity.

    Weights do not come back from that by themselves: the remedy goes back to where numbers were numbers.
    """

    name = "non_finite"
    looks_at = "a loss, a gradient or a validation loss that is NaN or infinite"
    severity = "critical"
    cure = LOWER
    edition = 1
    after = TWO

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
            confidence="certain",
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
        return RuleFinding(
            self.name,
            "critical",
            window.first,
            window.last,
            message,
            cure,
            (window.id,),
            figures,
            remedy,
            confidence="certain",
        )


def _remedy(seen: Evidence, first: int, step: int) -> Remedy:
    return Remedy.gentler(f"What was computed was not finite from step {step} on", seen.planned(first))


@rule
@dataclass(frozen=True)
class Exploding(Rule):
    """Fires when `windows` windows in a row are out of range; one that recovers is no problem.

    Out of range is: far above the loss of an untrained model; or above it after having learned; or above it with
    gradients a thousand times those before.
    """

    name = "exploding"
    looks_at = "a loss far above that of an untrained model, or above it after the model had learned"
    severity = "critical"
    cure = "Lower optimizer.learning_rate, lengthen schedule.warmup_steps, or set training.grad_clip."
    edition = 1
    windows: int = 2
    above: float = 3.0
    lost: float = 0.5
    norm: float = 1000.0
    burst: float = 8.0
    silent: float = 0.95
    huge: float = 0.02

    def look(self, seen: Evidence) -> RuleFinding | None:
        """Go back to before the first window that is out of range."""
        initial = seen.initial
        if seen.newest != "window" or initial is None:
            return None
        out = list(takewhile(lambda window: self._is_out(seen, window, initial), reversed(seen.windows)))
        if len(out) < self.windows:
            out = (self._burst(seen, initial) or self._died(seen, initial)) if seen.edition > 1 else []
        if not out:
            return None
        first, last = out[-1], out[0]
        return RuleFinding(
            self.name,
            "critical",
            first.first,
            last.last,
            f"The training loss has grown to {last.median:.4g} (median of steps {last.first}..{last.last}); it was"
            f" {initial:.4g} before any training and {last.lowest:.4g} at its lowest.",
            self.cure,
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

    def _burst(self, seen: Evidence, initial: float) -> list[WindowEvidence]:
        """The newest window when losses burst in it and ended above that of an untrained model."""
        window, chance = seen.windows[-1], seen.chance or 0.0
        ends = window.losses[-max(1, len(window.losses) // 4) :]
        sizes = max(abs(initial), abs(chance), 0.1)
        burst = window.finite and max(window.losses) > initial + self.burst * sizes
        return [window] if burst and median(ends) > max(initial, chance) else []

    def _died(self, seen: Evidence, initial: float) -> list[WindowEvidence]:
        """The first window when its steps were huge, and so large that all units of a layer fell silent in it."""
        window, chance = seen.windows[-1], seen.chance or 0.0
        silent = any((layer.dead or 0.0) > self.silent for layer in window.layers)
        huge = len(seen.windows) == 1 and window.finite and window.ratio > self.huge
        return [window] if silent and huge and window.median > 0.95 * max(initial, chance) else []

    def _is_out(self, seen: Evidence, window: WindowEvidence, initial: float) -> bool:
        size = max(abs(initial), 0.1)
        if not window.finite or window.median > initial + self.above * size:
            return window.finite
        if window.median <= initial + self.lost * size:
            return False
        norms = [other.gradient_norm for other in seen.windows if other.last <= window.first]
        is_steep = len(norms) >= 4 and window.gradient_norm > self.norm * median(norms)
        return window.lowest < initial - self.lost * size or is_steep


@rule
@dataclass(frozen=True)
class Spike(Rule):
    """Fires when a loss jumped in the window before the newest: a note when the level came back, a warning when not."""

    name = "spike"
    looks_at = "one loss far above those around it, against this run's own noise"
    severity = "warning"
    cure = "Look at the rows of that step (swarm trace S --step N), set training.grad_clip, or lower the learning rate."
    noises: ClassVar[float] = 20.0
    share: ClassVar[float] = 1.0

    def look(self, seen: Evidence) -> RuleFinding | None:
        """Compare the window before the newest with the one before it, and the newest with both."""
        recent, chance = seen.finite_windows(3), seen.chance
        if not recent or chance is None:
            return None
        before, jumped, after = recent
        peak, level = max(jumped.losses), before.mean
        if peak < level + self.share * abs(chance):
            return None
        noise = max(before.noise, 0.01 * abs(chance))
        if peak < level + self.noises * noise or max(before.losses) > 0.7 * peak:
            return None
        step = jumped.first + jumped.losses.index(peak) + 1
        stays = after.median > before.median + max(4 * noise, 0.2 * abs(chance))
        what = f"and has not come back: it is {after.median:.4g}" if stays else f"and is {after.median:.4g} again"
        figures = {"step": float(step), "peak": peak, "level": level, "noise": noise, "loss": after.median}
        message = f"The loss jumped to {peak:.4g} at step {step}, from {level:.4g}, {what} up to step {after.last}."
        severity = None if stays else "note"
        return self.finding(seen, message, recent, figures=figures, severity=severity)  # type: ignore[arg-type]


@rule
@dataclass(frozen=True)
class Oscillation(Rule):
    """Fires when steps are large and the loss stays high or loud: the learning rate is too high to settle."""

    name = "oscillation"
    looks_at = "the size of updates beside the weights, and a loss that is loud or does not fall"
    severity = "warning"
    cure = "Lower optimizer.learning_rate (a tenth), use a larger batch, or set training.grad_clip."
    windows: ClassVar[int] = 3
    begins: ClassVar[float] = 0.15
    ends: ClassVar[float] = 0.5
    huge: ClassVar[float] = 0.03
    large: ClassVar[float] = 0.014
    noise: ClassVar[float] = 0.12
    beyond: ClassVar[float] = 2.0
    """Times the noise that batches have because they hold other rows, about the loss over the root of their size."""
    decay: ClassVar[float] = 0.02

    def look(self, seen: Evidence) -> RuleFinding | None:
        """Judge the recent windows by the median of what they show; later, a loss may stand still for other reasons."""
        recent, chance = seen.finite_windows(self.windows), seen.chance
        if not recent or not chance or chance <= 0 or not self.begins <= seen.progress <= self.ends:
            return None
        if recent[-1].ratio < self.large / 2 or seen.decay_per_step > self.decay:
            return None
        ratio = median(window.ratio for window in recent)
        loss = seen.between(0.7, 1.0)
        if not (ratio > self.large and math.isfinite(loss)):
            return None
        noise, skill = median(window.noise for window in recent), seen.skill(loss)
        natural = self.beyond * loss / math.sqrt(seen.batch)
        is_loud = seen.task.kind != "regression" and noise > max(self.noise * chance, natural) and skill < 0.8
        if not is_loud and not self._stands_still(seen, ratio, (seen.between(0.3, 0.7) - loss) / chance, skill):
            return None
        message = (
            f"The loss stays near {loss:.4g} and changes by {noise:.2g} from step to step, while each step changes"
            f" weights by {ratio:.2g} of their size: the steps are too large to settle."
        )
        figures = {"update_ratio": ratio, "cosine": recent[-1].cosine, "noise": noise, "loss": loss}
        return self.finding(seen, message, recent, figures=figures)

    def _stands_still(self, seen: Evidence, ratio: float, gain: float, skill: float) -> bool:
        """Whether so large steps gain next to nothing, far from what can be learned."""
        if seen.progress < 0.25:
            return ratio > 2 * self.huge and gain < 0.03 and skill < 0.5
        return (ratio > self.huge and gain < 0.03 and skill < 0.5) or (gain < 0.02 and skill < 0.32)
