"""The training loss goes on falling while the validation loss has turned and rises. Advice only."""

from __future__ import annotations

from dataclasses import dataclass

from agents.diagnostician.evidence import Evidence
from agents.diagnostician.finding import RuleFinding


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
        recent = seen.evaluations[-self.evaluations :]
        if seen.newest != "evaluation" or len(recent) < self.evaluations:
            return None
        latest = recent[-1]
        best, trained = latest.best, latest.best_trained
        if latest.best_step >= recent[0].step or not best > 0 or not trained > 0:
            return None
        enough = max(self.now * best, self.matter * abs(seen.initial or 0.0))
        rises = all(one.loss > (1 + self.rise) * best for one in recent) and latest.loss > best + enough
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
            tuple(one.id for one in seen.evaluations if one.step >= latest.best_step),
            {"val_loss": latest.loss, "best_val_loss": best, "train_loss": latest.trained, "best_train_loss": trained},
        )
