"""Neither the control metric nor the training loss moves any more. Advice only: early stopping is what ends it."""

from __future__ import annotations

from dataclasses import dataclass

from agents.diagnostician.evidence import EvaluationEvidence, Evidence
from agents.diagnostician.finding import RuleFinding
from contracts.request.training import less_is_better


@dataclass(frozen=True)
class PlateauRule:
    """Fires when the last `evaluations` differ by less than `band` of their size and none of them is a new best."""

    name: str = "plateau"
    evaluations: int = 6
    band: float = 0.02

    def look(self, seen: Evidence) -> RuleFinding | None:
        """Compare the last evaluations with each other."""
        recent = seen.evaluations[-self.evaluations :]
        if seen.newest != "evaluation" or len(recent) < self.evaluations or any(one.improved for one in recent[1:]):
            return None
        values = [one.value for one in recent]
        if not (self._flat(values) and self._flat([one.trained for one in recent])):
            return None
        metric = recent[-1].metric
        return RuleFinding(
            self.name,
            "note",
            recent[0].step,
            recent[-1].step,
            f"{metric} has stayed between {min(values):.4g} and {max(values):.4g} for {len(recent)} evaluations, and"
            " the training loss stands still as well.",
            self._cure(recent[-1]),
            tuple(one.id for one in recent),
            {"lowest": min(values), "highest": max(values), "train_loss": recent[-1].trained},
        )

    def _flat(self, values: list[float]) -> bool:
        spread = max(values) - min(values)
        return spread <= self.band * max(abs(value) for value in values)

    def _cure(self, latest: EvaluationEvidence) -> str:
        if less_is_better(latest.metric):
            return "Try a schedule that ends lower (cosine), a tenth of optimizer.learning_rate, or a larger model."
        return "Try a schedule that ends lower (cosine), or a larger model; val_loss shows finer progress."
