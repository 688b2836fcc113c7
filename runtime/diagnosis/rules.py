"""The rules, in the order in which they are asked: what explains most comes first.

First those about a training that diverges, then those about layers through which nothing passes, then those about what
evaluations show over time, which advise only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from statistics import median

from contracts.request.training import less_is_better
from runtime.diagnosis.evidence import Evidence, Remedy, RuleFinding, WindowEvidence, rule

LOWER = "Lower optimizer.learning_rate or set training.grad_clip; with diagnosis.auto_fix this is done for you."


@rule
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


@rule
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


@rule
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


@rule
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
            dead = 0.0 if layer.dead is None or math.isnan(layer.dead) else layer.dead
            shares[layer.name] = min(shares.get(layer.name, 1.0), dead)
    return shares


@rule
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


@rule
@dataclass(frozen=True)
class Overfitting:
    """Fires when each of the last `evaluations` is worse than the best by `rise`, and training has still got better."""

    name: str = "overfitting"
    evaluations: int = 3
    rise: float = 0.05
    now: float = 0.15
    fall: float = 0.1
    matter: float = 0.05

    def look(self, seen: Evidence) -> RuleFinding | None:
        """Compare now with the best evaluation; what is small beside the loss of an untrained model is noise."""
        recent = seen.recent_evaluations(self.evaluations)
        if not recent:
            return None
        latest = recent[-1]
        best, trained = latest.best, latest.best_trained
        if latest.best_step >= recent[0].step or not best > 0 or not trained > 0:
            return None
        enough = max(self.now * best, self.matter * abs(seen.initial or 0.0))
        rises = all(each.loss > (1 + self.rise) * best for each in recent) and latest.loss > best + enough
        if not (rises and latest.trained < (1 - self.fall) * trained):
            return None
        return RuleFinding(
            self.name,
            "warning",
            latest.best_step,
            latest.step,
            f"Since step {latest.best_step} the validation loss has risen from {best:.4g} to {latest.loss:.4g} while"
            f" the training loss fell from {trained:.4g} to {latest.trained:.4g}.",
            f"Use the checkpoint of step {latest.best_step}; more data, model.dropout, optimizer.weight_decay or a"
            " smaller model would help, or early_stopping with less patience.",
            tuple(each.id for each in seen.evaluations if each.step >= latest.best_step),
            {"val_loss": latest.loss, "best_val_loss": best, "train_loss": latest.trained, "best_train_loss": trained},
        )


@rule
@dataclass(frozen=True)
class PlateauRule:
    """Fires when the last `evaluations` differ by less than `band` of their size and none of them is a new best.

    Early stopping is what ends such a training.
    """

    name: str = "plateau"
    evaluations: int = 6
    band: float = 0.02

    def look(self, seen: Evidence) -> RuleFinding | None:
        """Compare the last evaluations with each other, by the control metric and by the training loss."""
        recent = seen.recent_evaluations(self.evaluations)
        values = [each.value for each in recent]
        if not recent or any(each.improved for each in recent[1:]):
            return None
        if not (self._flat(values) and self._flat([each.trained for each in recent])):
            return None
        first, latest = recent[0], recent[-1]
        cure = "Try a schedule that ends lower (cosine), or a larger model; val_loss shows finer progress."
        if less_is_better(latest.metric):
            cure = "Try a schedule that ends lower (cosine), a tenth of optimizer.learning_rate, or a larger model."
        return RuleFinding(
            self.name,
            "note",
            first.step,
            latest.step,
            f"{latest.metric} has stayed between {min(values):.4g} and {max(values):.4g} for {len(recent)} evaluations,"
            " and the training loss stands still as well.",
            cure,
            tuple(each.id for each in recent),
            {"lowest": min(values), "highest": max(values), "train_loss": latest.trained},
        )

    def _flat(self, values: list[float]) -> bool:
        return max(values) - min(values) <= self.band * max(abs(value) for value in values)
