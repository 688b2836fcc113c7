"""Rules about what a training is given: rows, splits, loss, scale of the inputs, and weights to begin with."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from runtime.diagnosis.evidence import EvaluationEvidence, Evidence, Remedy, Rule, RuleFinding, rule


@rule
@dataclass(frozen=True)
class NonFiniteInput(Rule):
    """Fires at a window that is not finite and in whose rows stored values are not finite."""

    name = "non_finite_input"
    looks_at = "rows with stored values that are NaN or infinite, in a window that is not finite"
    severity = "critical"
    cure = "Correct these rows or remove them; no learning rate helps."

    def look(self, seen: Evidence) -> RuleFinding | None:
        """The rows as a finding."""
        window = seen.latest
        if seen.newest != "window" or window is None or window.finite or not window.spoiled:
            return None
        at = next((i for i, loss in enumerate(window.losses) if not math.isfinite(loss)), len(window.losses) - 1)
        step = window.first + at + 1
        rows = ", ".join(map(str, window.spoiled))
        begins = window.first - 1 if at == 0 and window.first else window.first
        return RuleFinding(
            self.name,
            "critical",
            window.first,
            window.last,
            f"Rows of the training split with values that are not finite: {rows}. What is computed from them is not"
            f" finite from step {step} on.",
            self.cure,
            (window.id,),
            {"step": float(step)} | {f"row:{n}": float(row) for n, row in enumerate(window.spoiled, 1)},
            Remedy.gentler(
                f"Rows that are not finite spoiled the weights at step {step}", seen.planned(max(0, begins))
            ),
            "certain",
        )


@rule
@dataclass(frozen=True)
class Leakage(Rule):
    """Fires at the first evaluation when the model is judged by rows that it is trained on, or told the answers."""

    name = "leakage"
    looks_at = "the share of validation rows that are also trained on, and features that give the answer away"
    severity = "warning"
    cure = "Remove repeated rows (duplicates: set-aside), or name the column that binds them in split.group."
    after = ("evaluation",)
    share: ClassVar[float] = 0.02

    def look(self, seen: Evidence) -> RuleFinding | None:
        """What the data manager noticed, when it matters."""
        leaks, rows = seen.task.leaks.get("val", 0), seen.task.rows.get("val", 0)
        figures = {"leaking": float(leaks), "rows": float(rows)}
        if rows and leaks > self.share * rows:
            message = f"{leaks} of {rows} validation rows are also trained on, so the evaluations measure memory."
            return self.finding(seen, message, seen.evaluations[-1:], figures=figures, confidence="certain")
        if not seen.task.telling:
            return None
        names = ", ".join(seen.task.telling[:3])
        message = (
            f"The target follows from {names} alone: a column that is known only with the answer, or a copy of it."
        )
        cure = f"Name it in `ignore` unless it is known when the model is asked: {names}."
        return self.finding(seen, message, seen.evaluations[-1:], figures=figures | {"telling": 1.0}, cure=cure)


@rule
@dataclass(frozen=True)
class WrongLoss(Rule):
    """Fires when the loss is made small and the metric does not follow, or is no loss of its task at all."""

    name = "wrong_loss"
    looks_at = "a training loss that gets better while the metric stays at chance, or that is negative for classes"
    severity = "warning"
    cure = "Use the task's own loss (loss.type: auto), and hand it logits for classes."
    after = ("evaluation",)
    fell: ClassVar[float] = 0.5
    better: ClassVar[float] = 0.3
    begins: ClassVar[float] = 0.2

    def look(self, seen: Evidence) -> RuleFinding | None:
        """Compare what the loss and what the metric say has been learned."""
        recent, initial, window = seen.recent_evaluations(2), seen.initial, seen.latest
        if not recent or initial is None or window is None or seen.progress < self.begins:
            return None
        latest, kind = recent[-1], seen.task.kind
        figures = {"initial_loss": initial, "loss": window.median, "val_loss": latest.loss}
        if kind in ("classification", "sequences") and window.median < -0.01 and latest.loss < -0.01:
            message = (
                f"The loss is {window.median:.4g}, and no loss of classes is negative: what it is given are no logits."
            )
            return self.finding(seen, message, [window, latest], figures=figures, confidence="certain")
        metrics = [self._learned(seen, one) for one in recent]
        metric = metrics[-1]
        if metric is None or any(one is not None and one > 0.1 for one in metrics):
            return None
        size = max(abs(initial), 1e-9)
        if not (window.median < initial - self.fell * size and latest.loss < initial - self.fell * size):
            return None
        if seen.task.chance is not None and seen.skill(latest.loss) < self.better:
            return None  # What is bad by its loss may be bad by its metric.
        message = (
            f"The training loss has fallen from {initial:.4g} to {window.median:.4g} and the validation loss to"
            f" {latest.loss:.4g}, while the metric is no better than that of a model that knows nothing."
        )
        return self.finding(seen, message, [window, *recent], figures=figures | {"learned": metric})

    @staticmethod
    def _learned(seen: Evidence, one: EvaluationEvidence) -> float | None:
        """How much of what can be learned the metric shows: 0 for a model that knows nothing, 1 for all of it."""
        share = seen.task.share
        if share is not None and "val_accuracy" in one.values and share < 1:
            return (one.values["val_accuracy"] - share) / (1 - share)
        return one.values.get("val_r2")


@rule
@dataclass(frozen=True)
class DoubleActivation(Rule):
    """Fires when losses never pass the floor of a softmax of a softmax, though the answers are mostly right.

    Cross-entropy of probabilities that are taken for logits cannot be smaller than ln(1 + (classes - 1) / e).
    """

    name = "double_activation"
    looks_at = "a cross-entropy that stays above ln(1 + (classes - 1) / e) while answers are right"
    severity = "warning"
    cure = "Hand the loss the logits: take the softmax or sigmoid out of the model."
    after = ("evaluation",)
    begins: ClassVar[float] = 0.3
    learned: ClassVar[float] = 0.2
    band: ClassVar[float] = 0.04

    def look(self, seen: Evidence) -> RuleFinding | None:
        """Compare the smallest loss with the floor, and the present one with what the accuracy promises."""
        evaluation, initial, classes = seen.evaluations[-1], seen.initial, seen.task.classes
        share, chance = seen.task.share, seen.task.chance
        if classes < 2 or initial is None or share is None or chance is None or seen.progress < self.begins:
            return None
        floor, accuracy = math.log(1 + (classes - 1) / math.e), evaluation.values.get("val_accuracy", 0.0)
        lowest = min((min(window.losses) for window in seen.windows if window.losses), default=0.0)
        if lowest < 0.98 * floor or abs(initial - math.log(classes)) > 0.03 * math.log(classes):
            return None
        wrong = min(max(1 - accuracy, 1e-6), 1 - 1e-6)
        honest = -(1 - wrong) * math.log(1 - wrong) - wrong * math.log(wrong / (classes - 1))
        if accuracy < share + self.learned * (1 - share) or lowest < 1.4 * honest:
            return None
        if not seen.between(0.5, 0.75) - seen.between(0.75, 1.0) < self.band * chance:
            return None
        message = (
            f"{accuracy:.0%} of the answers are right, but the loss has not passed {lowest:.4g}; {floor:.4g} is the"
            " least that a softmax of a softmax allows."
        )
        figures = {"floor": floor, "lowest_loss": lowest, "accuracy": accuracy}
        return self.finding(seen, message, [*seen.windows[-1:], evaluation], figures=figures)


@rule
@dataclass(frozen=True)
class MissingNormalisation(Rule):
    """Fires when inputs of very different or very large size reach the model as they are, and it learns badly."""

    name = "missing_normalisation"
    looks_at = "the size of the inputs, where nothing scales them, and how badly the model learns"
    severity = "warning"
    cure = "Scale the inputs: model.standardize: true, or divide them by their deviation in the workload."
    after = ("window", "evaluation")
    large: ClassVar[float] = 8.0
    small: ClassVar[float] = 0.1
    begins: ClassVar[float] = 0.3
    learned: ClassVar[float] = 0.5
    first: ClassVar[float] = 2.5

    def look(self, seen: Evidence) -> RuleFinding | None:
        """Look at the loss of the first batch, and again when a part of the plan is over."""
        scales, chance, initial = seen.task.scales, seen.chance, seen.initial
        if scales is None or chance is None or initial is None or seen.latest is None:
            return None
        largest, smallest = scales
        if self.small <= largest <= self.large:
            return None
        begins_badly = seen.untrained is not None and initial > self.first * seen.untrained
        learns_badly = seen.progress >= self.begins and seen.skill(seen.between(0.6, 1.0)) < self.learned
        if not (begins_badly or learns_badly):
            return None
        message = (
            f"Features reach the model with means and deviations of up to {largest:.4g} (the smallest deviation is"
            f" {smallest:.4g}); the loss was {initial:.4g} at first, is {seen.latest.median:.4g}, and"
            f" {chance:.4g} by chance."
        )
        figures = {"largest": largest, "smallest": smallest, "initial_loss": initial, "loss": seen.latest.median}
        return self.finding(seen, message, seen.windows[-1:], figures=figures)


@rule
@dataclass(frozen=True)
class BadInitialisation(Rule):
    """Fires when the first batch is answered much worse than by guessing, or weights that were given lead nowhere."""

    name = "bad_initialisation"
    looks_at = (
        "the loss of the first batch beside that of a guess, and how little is learned from weights that were given"
    )
    severity = "warning"
    cure = "Draw smaller weights to begin with, or leave model.init out; a last layer near 0 begins at chance."
    times: ClassVar[float] = 2.5
    begins: ClassVar[float] = 0.3
    learned: ClassVar[float] = 0.45

    def look(self, seen: Evidence) -> RuleFinding | None:
        """Compare the first loss with a guess, and later the recent losses with chance."""
        initial, chance = seen.initial, seen.untrained
        if initial is None or chance is None:
            return None
        figures = {"initial_loss": initial, "chance": chance}
        if len(seen.windows) == 1 and initial > self.times * chance and seen.asked_float("model", "dropout") <= 0.5:
            message = f"The loss of the first batch is {initial:.4g}, that of a model that guesses {chance:.4g}."
            return self.finding(seen, message, seen.windows[-1:], figures=figures)
        if not (seen.request.get("model") or {}).get("init") or seen.progress < self.begins:
            return None
        loss = seen.between(0.7, 1.0)
        if not seen.skill(loss) < self.learned:
            return None
        message = (
            f"After {seen.progress:.0%} of the plan the loss is {loss:.4g} ({chance:.4g} is a guess): the weights that"
            " the training began with lead nowhere; they may all be alike, or too large or too small."
        )
        about = figures | {"loss": loss}
        return self.finding(seen, message, seen.windows[-1:], figures=about, confidence="possible")
