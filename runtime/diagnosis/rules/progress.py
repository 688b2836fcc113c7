"""Rules about how fast the training loss falls: too slow a rate, nothing learned, not enough room."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from runtime.diagnosis.evidence import Evidence, Rule, RuleFinding, rule

HELD_DROPOUT, HELD_DECAY = 0.7, 0.02
"""The share of units, and the share of the weights in a step, that a model which learns nothing loses on request."""


NARROW, NARROW_TOKENS = 2, 4
"""Units, or numbers of a token, through which next to nothing passes."""


def is_narrow(seen: Evidence) -> bool:
    """Whether the request's model has a layer through which next to nothing passes."""
    model = seen.request.get("model") or {}
    widths = [*(model.get("hidden") or ()), *(model.get("channels") or ())]
    few = min(widths, default=NARROW + 1) <= NARROW or 0 < seen.asked_float("model", "width") <= NARROW_TOKENS
    return few and not seen.is_foreign


def answered(seen: Evidence) -> float | None:
    """The share of what can be answered right beyond a guess that was, on other rows; None where nobody counted."""
    share, right = seen.task.share, seen.evaluations[-1].values.get("val_accuracy") if seen.evaluations else None
    return None if share is None or right is None or share >= 1 else (right - share) / (1 - share)


def warmed_up(seen: Evidence) -> bool:
    """Whether the learning rate does not rise any more."""
    rates = [window.learning_rate for window in seen.windows[-2:]]
    return len(rates) == 2 and rates[1] <= rates[0]


@rule
@dataclass(frozen=True)
class Creeping(Rule):
    """Fires when little is learned by a part of the plan and steps are tiny: the learning rate is too low."""

    name = "creeping"
    looks_at = "the size of updates, while after a quarter of the plan little has been learned"
    severity = "warning"
    cure = "Raise optimizer.learning_rate (ten times), or train for more epochs."
    begins: ClassVar[float] = 0.25
    ends: ClassVar[float] = 0.6
    """Later a schedule may have made steps small on purpose."""
    ratio: ClassVar[float] = 3e-4
    learned: ClassVar[float] = 0.4

    def look(self, seen: Evidence) -> RuleFinding | None:
        """Judge the whole path."""
        recent, chance = seen.finite_windows(2), seen.chance
        if not recent or chance is None or not self.begins <= seen.progress <= self.ends:
            return None
        ratio = max(window.ratio for window in recent)
        if not ratio < self.ratio or not warmed_up(seen):
            return None
        now = seen.between(0.7, 1.0)
        if not math.isfinite(now) or seen.skill(now) > self.learned:
            return None
        message = (
            f"After {seen.progress:.0%} of the plan the loss is {now:.4g} ({chance:.4g} is chance), and a step changes"
            f" weights by {ratio:.2g} of their size."
        )
        figures = {"update_ratio": ratio, "loss": now, "chance": chance, "learning_rate": recent[-1].learning_rate}
        return self.finding(seen, message, recent, figures=figures)


@rule
@dataclass(frozen=True)
class NoLearning(Rule):
    """Fires when the loss is at chance after a part of the plan and does not fall, whatever the reason."""

    name = "no_learning"
    looks_at = "a training loss no better than chance after a quarter of the plan, without a fall"
    severity = "warning"
    cure = "Look at labels and features, choose a larger model than a linear one, or another optimizer.learning_rate."
    begins: ClassVar[float] = 0.25
    learned: ClassVar[float] = 0.05
    far: ClassVar[float] = 8.0
    patient: ClassVar[float] = 0.34
    """Until then a validation loss that still gets better, however little, may be the beginning."""
    answered: ClassVar[float] = 0.4

    def look(self, seen: Evidence) -> RuleFinding | None:
        """Compare the recent part of the path with chance, and with the part before it."""
        recent, chance = seen.finite_windows(1), seen.chance
        if not recent or chance is None or seen.progress < self.begins or not warmed_up(seen):
            return None
        known = seen.asked_float("model", "dropout") >= HELD_DROPOUT or seen.decay_per_step >= HELD_DECAY
        if known or is_narrow(seen) or seen.skill(recent[-1].mean) > self.far * self.learned:
            return None  # Where the request says the reason, `underfitting` tells it.
        improves = seen.progress < self.patient and any(one.improved for one in seen.evaluations[-3:])
        if improves or (answered(seen) or 0.0) > self.answered:
            return None
        now, before = seen.between(0.5, 1.0), seen.between(0.0, 0.5)
        if not math.isfinite(now):
            return None
        skill = seen.skill(now)
        falls = math.isfinite(before) and before - now > 0.1 * abs(chance)
        if skill > self.learned or falls:
            return None
        message = (
            f"Nothing has been learned after {seen.progress:.0%} of the plan: the training loss is {now:.4g}, that of a"
            f" model that knows nothing {chance:.4g}."
        )
        figures = {"loss": now, "chance": chance, "skill": skill, "update_ratio": recent[-1].ratio}
        return self.finding(seen, message, recent, figures=figures)


@rule
@dataclass(frozen=True)
class Underfitting(Rule):
    """Fires when the training loss stands still far from 0, or is held up by what the request asks for against it."""

    name = "underfitting"
    looks_at = "a training loss that stands still at a large share of chance, and dropout and weight decay as asked for"
    severity = "warning"
    cure = "Use a larger model (model.hidden), less model.dropout and optimizer.weight_decay, or better features."
    begins: ClassVar[float] = 0.5
    begins_asked: ClassVar[float] = 0.3
    learned: ClassVar[float] = 0.35
    learned_classes: ClassVar[float] = 0.5
    learned_tokens: ClassVar[float] = 0.2
    """Classes are usually told apart, on other rows as well; numbers, and more so tokens, have noise of their own."""
    answered: ClassVar[float] = 0.6
    well: ClassVar[float] = 0.8
    held_up: ClassVar[float] = 0.7
    band: ClassVar[float] = 0.04

    def look(self, seen: Evidence) -> RuleFinding | None:
        """Compare quarters of the path with each other and with chance."""
        recent, chance = seen.finite_windows(1), seen.chance
        if not recent or chance is None or seen.progress < self.begins_asked or seen.skill(recent[-1].mean) > self.well:
            return None
        dropout, taken = seen.asked_float("model", "dropout"), seen.decay_per_step
        is_held_up = dropout >= HELD_DROPOUT or taken >= HELD_DECAY
        if not is_held_up and seen.progress < self.begins:
            return None
        now = seen.between(0.75, 1.0)
        skill = seen.skill(now)
        figures = {"loss": now, "chance": chance, "skill": skill}
        if is_held_up and skill < self.held_up:
            drops = f"dropout takes {dropout:.0%} of the units"
            what = drops if dropout >= HELD_DROPOUT else f"decay takes {taken:.1%} of the weights"
            message = f"The training loss is {now:.4g} ({chance:.4g} is chance), while in each step {what} away."
            cure = "Lower model.dropout." if dropout >= HELD_DROPOUT else "Lower optimizer.weight_decay."
            about = figures | {"dropout": dropout, "decay_per_step": taken}
            return self.finding(seen, message, recent, figures=about, cure=cure)
        right = answered(seen)
        most = self.learned_tokens if seen.task.kind == "sequences" else self.learned
        if is_narrow(seen) or (right is not None and not seen.task.doubtful):
            most = self.learned_classes
        least = -math.inf if is_narrow(seen) else 0.0
        stands = least < skill < most and seen.between(0.5, 0.75) - now <= self.band * abs(chance)
        if seen.progress < self.begins or not stands or (right or 0.0) > self.answered:
            return None
        message = (
            f"The training loss stands still at {now:.4g} after {seen.progress:.0%} of the plan ({chance:.4g} is"
            " chance): the model cannot fit what it is shown."
        )
        return self.finding(seen, message, recent, figures=figures)
