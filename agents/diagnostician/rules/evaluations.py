"""Rules about what evaluations show over time: overfitting, and a plateau. Both advise only."""

from __future__ import annotations

from dataclasses import dataclass

from agents.diagnostician.evidence import Evidence, RuleFinding
from contracts.request.training import less_is_better


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
