"""The rules in the order in which they are asked: what explains most comes first."""

from agents.diagnostician.evidence import Rule
from agents.diagnostician.rules.divergence import Exploding, NonFinite
from agents.diagnostician.rules.evaluations import Overfitting, PlateauRule
from agents.diagnostician.rules.gradients import DeadLayer, DeadUnits, Vanishing

RULES: tuple[Rule, ...] = (
    NonFinite(),
    Exploding(),
    DeadLayer(),
    DeadUnits(),
    Vanishing(),
    Overfitting(),
    PlateauRule(),
)

__all__ = ["RULES"]
