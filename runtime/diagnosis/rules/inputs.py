"""Rules about what a training is given: rows, splits, loss, scale of the inputs, and weights to begin with."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from contracts.diagnostician import Severity
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
        cure = f"Name it in `ignore` (or paint it over) unless it is known when the model is asked: {names}."
        return self.finding(seen, message, seen.evaluations[-1:], figures=figures | {"telling": 1.0}, cure=cure)


@rule
@dataclass(frozen=True)
class WrongLoss(Rule):
    """Fires when the loss is made small and the metric does not follow, or is no loss of its task at all.

    A row that is answered wrong costs a cross-entropy of ln 2 at least, so a loss says how many there can be; a squared
    error in units of the target's deviation says what share of its variance is explained.
    """

    name = "wrong_loss"
    looks_at = "a training loss that gets better while the metric stays behind it, or that is negative for classes"
    severity = "warning"
    cure = "Use the task's own loss (loss.type: auto), and hand it logits for classes."
    after = ("evaluation",)
    fell: ClassVar[float] = 0.5
    better: ClassVar[float] = 0.3
    begins: ClassVar[float] = 0.2
    follows: ClassVar[float] = 0.25
    """Of the share by which the loss fell, what the metric has learned at least."""

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
        if all(self._belies(seen, one) for one in recent):
            message = (
                f"With a validation loss of {latest.loss:.4g} more answers would be right than are: the loss does not"
                " count all that is wrong."
            )
            return self.finding(seen, message, [window, *recent], figures=figures)
        metrics = [self._learned(seen, one) for one in recent]
        metric, size = metrics[-1], max(abs(initial), 1e-9)
        fell = min(initial - window.median, initial - latest.loss) / size
        if metric is None or fell < self.fell or max(one or 0.0 for one in metrics) > self.follows * min(fell, 1.0):
            return None
        if seen.task.chance is not None and seen.skill(latest.loss) < self.better:
            return None  # What is bad by its loss may be bad by its metric.
        message = (
            f"The training loss has fallen from {initial:.4g} to {window.median:.4g} and the validation loss to"
            f" {latest.loss:.4g}, while the metric is hardly better than that of a model that knows nothing."
        )
        return self.finding(seen, message, [window, *recent], figures=figures | {"learned": metric})

    @staticmethod
    def _learned(seen: Evidence, one: EvaluationEvidence) -> float | None:
        """How much of what can be learned the metric shows: 0 for a model that knows nothing, 1 for all of it."""
        share, perplexity = seen.task.share, one.values.get("val_perplexity", 0.0)
        if share is not None and "val_accuracy" in one.values and share < 1:
            return (one.values["val_accuracy"] - share) / (1 - share)
        if seen.chance and seen.chance > 0 and perplexity > 0:
            return 1 - math.log(perplexity) / seen.chance
        return one.values.get("val_r2")

    def _belies(self, seen: Evidence, one: EvaluationEvidence) -> bool:
        """Whether a loss of the task's own kind cannot be so small with such a metric."""
        asked, accuracy = seen.request.get("loss") or {}, one.values.get("val_accuracy")
        if seen.task.chance is None or one.loss < 0:
            return False
        if seen.task.kind == "regression":
            return one.loss < 0.4 and one.values.get("val_r2", 1.0) < 0.1
        # A workload's loss may be a mean over classes.
        times = 1.5 * (seen.task.classes if seen.is_foreign else 1)
        is_weighed = asked.get("class_weights") == "balanced"
        return accuracy is not None and not is_weighed and 1 - accuracy > 0.1 + times * one.loss / math.log(2)


@rule
@dataclass(frozen=True)
class DoubleActivation(Rule):
    """Fires when answers are squashed before the loss squashes them.

    Cross-entropy of numbers between 0 and 1 that are taken for logits cannot be smaller than ln(1 + (classes - 1) / e),
    and of the first batch it is nearly the same for every row. Numbers behind a bounded or rectified last layer cannot
    reach what is asked for.
    """

    name = "double_activation"
    looks_at = (
        "a cross-entropy that stays above ln(1 + (classes - 1) / e) while answers are right, or that at first hardly"
        " differs from row to row, and a last layer behind which answers are bounded or cut off"
    )
    severity = "warning"
    cure = "Hand the loss what the last layer answers: take the softmax, sigmoid or rectifier out of the model."
    after = ("evaluation",)
    begins: ClassVar[float] = 0.3
    learned: ClassVar[float] = 0.2
    well: ClassVar[float] = 0.7
    band: ClassVar[float] = 0.04
    alike: ClassVar[float] = 0.25
    """By this over the number of classes, in units of a guess, first losses differ where nothing is squashed."""

    def look(self, seen: Evidence) -> RuleFinding | None:
        """Look at the last layer, at the first losses, and at the smallest one beside its floor."""
        evaluation, chance, classes = seen.evaluations[-1], seen.task.chance, seen.task.classes
        known = (seen.request.get("model") or {}).get("architecture", "workload") != "workload"
        if known or not seen.windows or chance is None or seen.progress < self.begins:
            return None
        window, skill = seen.windows[-1], seen.skill(seen.between(0.7, 1.0))
        last = window.layers[-1] if window.layers else None
        bounded = last is not None and (last.dead is not None or last.saturated is not None)
        floor = math.log(1 + (classes - 1) / math.e) if classes > 1 else 0.0
        lowest = min((min(one.losses) for one in seen.windows if one.losses), default=0.0)
        figures = {"floor": floor, "lowest_loss": lowest, "accuracy": evaluation.values.get("val_accuracy", math.nan)}
        if not math.isfinite(skill) or lowest < 0.98 * floor:
            return None
        if seen.is_foreign and bounded and last is not None and skill < self.well:
            message = (
                f"What {last.name!r} answers last is cut off or bounded before the loss sees it, and the loss stays at"
                f" {window.median:.4g} ({chance:.4g} is chance)."
            )
            return self.finding(seen, message, [window, evaluation], figures=figures, confidence="possible")
        if classes < 2 or not (self._alike(seen, classes) or self._right(seen, evaluation, lowest)):
            return None
        message = (
            f"The loss has not passed {lowest:.4g}, where {floor:.4g} is the least that a softmax of a softmax allows,"
            " and it says less of each row than the answers do."
        )
        return self.finding(seen, message, [window, evaluation], figures=figures)

    def _alike(self, seen: Evidence, classes: int) -> bool:
        """Whether the first losses are those of answers that are all alike, far more than drawn weights give them."""
        first, guess = seen.windows[0], math.log(classes)
        noise = first.noise * math.sqrt(seen.batch)
        return (
            seen.is_foreign
            and first.first == 0
            and abs(first.losses[0] - guess) < 0.03 * guess
            and noise < self.alike / classes * guess
        )

    def _right(self, seen: Evidence, evaluation: EvaluationEvidence, lowest: float) -> bool:
        """Whether answers are mostly right, and the loss stands still where it promises less."""
        initial, classes, share = seen.initial, seen.task.classes, seen.task.share
        accuracy = evaluation.values.get("val_accuracy", 0.0)
        if initial is None or share is None or abs(initial - math.log(classes)) > 0.03 * math.log(classes):
            return False
        wrong = min(max(1 - accuracy, 1e-6), 1 - 1e-6)
        honest = -(1 - wrong) * math.log(1 - wrong) - wrong * math.log(wrong / (classes - 1))
        if accuracy < share + self.learned * (1 - share) or lowest < 1.4 * honest:
            return False
        return seen.between(0.5, 0.75) - seen.between(0.75, 1.0) < self.band * (seen.task.chance or 0.0)


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
        # How a workload scales what it is given is not seen, and its loss may be another one.
        if not (begins_badly and learns_badly if seen.is_foreign else begins_badly or learns_badly):
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
    begins: ClassVar[float] = 0.2
    learned: ClassVar[float] = 0.45

    def look(self, seen: Evidence) -> RuleFinding | None:
        """Compare the first loss with a guess, and later the recent losses with chance."""
        initial, chance = seen.initial, seen.untrained
        if initial is None or chance is None:
            return None
        figures = {"initial_loss": initial, "chance": chance}
        if len(seen.windows) == 1 and initial > self.times * chance and seen.asked_float("model", "dropout") <= 0.5:
            message = f"The loss of the first batch is {initial:.4g}, that of a model that guesses {chance:.4g}."
            severity: Severity = "note" if seen.is_foreign else "warning"  # Its loss may be another one.
            return self.finding(seen, message, seen.windows[-1:], figures=figures, severity=severity)
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
