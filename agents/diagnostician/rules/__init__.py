"""The rules in the order in which they are asked: what explains most comes first. One file per rule."""

from agents.diagnostician.finding import Rule
from agents.diagnostician.rules.dead_layer import DeadLayer
from agents.diagnostician.rules.dead_units import DeadUnits
from agents.diagnostician.rules.exploding import Exploding
from agents.diagnostician.rules.non_finite import NonFinite
from agents.diagnostician.rules.overfitting import Overfitting
from agents.diagnostician.rules.plateau import PlateauRule
from agents.diagnostician.rules.vanishing import Vanishing

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
