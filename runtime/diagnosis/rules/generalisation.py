"""Rules about what evaluations show: of rows that were not trained on, of each class, and over time."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import median
from typing import ClassVar

from contracts.request.training import less_is_better
from runtime.diagnosis.evidence import EvaluationEvidence, Evidence, Rule, RuleFinding, rule


@rule
@dataclass(frozen=True)
class MissingClass(Rule):
    """Fires when most rows are answered right and some class hardly ever, in two evaluations in a row."""

    name = "missing_class"
    looks_at = "the mean of the F1 scores of classes beside the share of right answers, where classes differ in size"
    severity = "warning"
    cure = "Weigh classes (loss: {type: cross_entropy, class_weights: balanced}), or gather rows of the rare ones."
    after = ("evaluation",)
    begins: ClassVar[float] = 0.5
    """Rare classes are learned late."""
    gap: ClassVar[float] = 0.14
    rare: ClassVar[float] = 0.25

    def look(self, seen: Evidence) -> RuleFinding | None:
        """A class that is never answered takes its share of the mean, however few its rows are."""
        recent, counts = seen.recent_evaluations(2), seen.task.counts
        if not recent or seen.progress < self.begins or len(counts) < 2 or sum(counts) == 0:
            return None
        if min(counts) > self.rare * sum(counts) / len(counts):
            return None
        gaps = [self._right(one) - one.values.get("val_f1_macro", 1.0) for one in recent]
        if min(gaps) < self.gap:
            return None
        latest = recent[-1]
        f1, share = latest.values["val_f1_macro"], (seen.task.share or 0.0)
        message = (
            f"About {self._right(latest):.0%} of the answers are right, but the mean F1 score of classes is"
            f" {f1:.2g}: rare ones ({min(counts)} of {sum(counts)} rows) are hardly ever answered."
        )
        figures = {"right": self._right(latest), "f1_macro": f1, "largest_share": share, "smallest": float(min(counts))}
        # What is asked for already is no cure: there are too few rows of the class.
        weighed = (seen.request.get("loss") or {}).get("class_weights") == "balanced"
        return self.finding(seen, message, recent, figures=figures, severity="note" if weighed else "warning")

    @staticmethod
    def _right(one: EvaluationEvidence) -> float:
        """The accuracy, or about what the loss lets expect of it where it was not measured."""
        return one.values.get("val_accuracy", max(0.0, 1 - 0.45 * one.loss))


@rule
@dataclass(frozen=True)
class LabelNoise(Rule):
    """Fires when validation was best early, with little learned, and the model goes on to learn rows by heart."""

    name = "label_noise"
    looks_at = (
        "rows that are answered otherwise than rows like them everywhere alike; a best validation loss that is poor and"
        " early, as is the training loss there, and what came after"
    )
    severity = "warning"
    cure = "Look at the labels, above all at rows that are answered wrong with confidence; loss.label_smoothing helps."
    after = ("evaluation",)
    asked: ClassVar[float] = 0.15
    begins: ClassVar[float] = 0.3
    poor: ClassVar[float] = 0.7

    def look(self, seen: Evidence) -> RuleFinding | None:
        """Ask the rows where too little was learned of them; compare the best evaluation with now."""
        chance, best = seen.chance, seen.evaluations[-1]
        if chance is None or not chance > 0:
            return None
        learned, trained = 1 - best.best / chance, 1 - best.best_trained / chance
        figures = {"best_val_loss": best.best, "train_loss_then": best.best_trained, "val_loss": best.loss}
        if seen.task.doubtful and seen.progress >= self.asked and learned < self.poor:
            message = (
                f"About {seen.task.doubtful} of {sum(seen.task.rows.values())} rows are answered otherwise than rows"
                f" like them, everywhere alike; the best validation loss is {best.best:.4g} ({chance:.4g} is chance)."
            )
            found = self.finding(seen, message, [best], figures=figures | {"doubtful": float(seen.task.doubtful)})
            return replace(found, beside="missing_normalisation")
        if not seen.recent_evaluations(3) or seen.progress < self.begins:
            return None
        poor = 0.05 < learned < self.poor and trained < learned + 0.15
        rises = best.best_step <= 0.6 * best.step and best.loss > best.best + 0.12 * chance
        if not (poor and rises and best.trained < best.best_trained - 0.1 * chance):
            return None
        message = (
            f"Validation was best at step {best.best_step} with a loss of {best.best:.4g}, when the training loss was"
            f" {best.best_trained:.4g}; since then training has fallen to {best.trained:.4g} and validation is"
            f" {best.loss:.4g}: what is left to learn does not hold for other rows, as with wrong labels."
        )
        return self.finding(seen, message, seen.evaluations[-3:], figures=figures, confidence="possible")


@rule
@dataclass(frozen=True)
class Overfitting(Rule):
    """Fires when each of the last `evaluations` is worse than the best by `rise`, and training has still got better."""

    name = "overfitting"
    looks_at = "a validation loss that rises while the training loss falls"
    severity = "warning"
    cure = "Use the best checkpoint; more data, model.dropout, optimizer.weight_decay or a smaller model would help."
    edition = 1
    after = ("evaluation",)
    evaluations: int = 3
    rise: float = 0.05
    now: float = 0.15
    fall: float = 0.1
    matter: float = 0.05
    matter_now: float = 0.15
    half: float = 0.5
    known: float = 0.03
    gap: float = 0.25
    wide: float = 0.4
    worse: float = 0.05
    much_worse: float = 0.12

    def _by_heart(self, seen: Evidence, latest: EvaluationEvidence) -> bool:
        """Whether rows are known by heart, and others have been answered worse for half of the path."""
        chance = seen.untrained or seen.chance or 0.0
        if seen.edition < 2 or chance <= 0 or latest.best_step > self.half * latest.step:
            return False
        # One evaluation may be off by chance; the middle one of the last three has to be worse.
        loss = median(each.loss for each in seen.evaluations[-self.evaluations :])
        gap, worse = (loss - latest.trained) / chance, (loss - latest.best) / chance
        is_wide = (gap > self.wide and worse > self.worse) or (gap > self.gap and worse > self.much_worse)
        return latest.trained < self.known * chance and is_wide

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
        enough = (
            enough if seen.edition < 2 else max(enough, self.matter_now * abs(seen.untrained or seen.chance or 0.0))
        )
        now = latest.loss if seen.edition < 2 else min(latest.loss, median(each.loss for each in recent))
        rises = all(each.loss > (1 + self.rise) * best for each in recent) and now > best + enough
        if not (rises and latest.trained < (1 - self.fall) * trained) and not self._by_heart(seen, latest):
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
class NoisyValidation(Rule):
    """Fires when a handful of rows says when to stop, or evaluations jump by far more than the training loss does."""

    name = "noisy_validation"
    looks_at = "the rows judged by, and the size of changes between evaluations beside those of the training loss"
    severity = "warning"
    cure = (
        "Judge by more rows (data.split.val), or lower optimizer.learning_rate when the training loss is loud as well."
    )
    after = ("evaluation",)
    evaluations: ClassVar[int] = 8
    jump: ClassVar[float] = 0.1
    few: ClassVar[int] = 20
    """Judged by so many rows, an accuracy is off by a tenth as often as not."""

    def look(self, seen: Evidence) -> RuleFinding | None:
        """Count the rows; compare the median change of the validation loss with that of the training loss."""
        rows, chance = seen.task.rows.get("val", 0), seen.chance
        stops = (seen.request.get("early_stopping") or {}).get("enabled", True)
        if stops and 0 < rows < self.few:
            message = (
                f"{rows} rows say when to stop; an accuracy by so many is off by {0.5 / math.sqrt(rows):.0%} as a rule,"
                " and a validation loss by as much."
            )
            return self.finding(seen, message, seen.evaluations[-1:], figures={"rows": float(rows)})
        recent = seen.recent_evaluations(self.evaluations)
        if not recent or chance is None or not chance > 0:
            return None
        jumps = median(abs(after.loss - before.loss) for before, after in pairwise(recent))
        trained = median(abs(after.trained - before.trained) for before, after in pairwise(recent))
        if not (jumps > self.jump * chance and jumps > 3 * trained):
            return None
        message = (
            f"The validation loss changes by {jumps:.4g} from one evaluation to the next, the training loss by"
            f" {trained:.4g}; {rows} rows are judged by."
        )
        figures = {"jump": jumps, "train_jump": trained, "rows": float(rows)}
        return self.finding(seen, message, recent, figures=figures, severity="note")


@rule
@dataclass(frozen=True)
class PlateauRule(Rule):
    """Fires when the last `evaluations` differ by less than `band` of their size and none of them is a new best.

    Early stopping is what ends such a training.
    """

    name = "plateau"
    looks_at = "evaluations that differ by less than a fiftieth, while the training loss stands still"
    severity = "note"
    cure = "Try a schedule that ends lower (cosine), a tenth of optimizer.learning_rate, or a larger model."
    edition = 1
    after = ("evaluation",)
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
            cure = self.cure
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
