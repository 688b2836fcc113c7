"""What the evaluations so far say to those parts that follow them: learning-rate schedules and samplers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

Costs = Sequence[tuple[int, float]]
"""The control metric at each evaluated step, in order, turned so that less is better."""


@dataclass(frozen=True, slots=True)
class EvaluationsView:
    """The evaluations so far. A resume, a fork and an audit take them from the log, so what follows from them is pure.

    A step sees the evaluations up to it, none after: later ones never change what it saw.
    """

    costs: Costs = ()

    def since(self, start: int) -> EvaluationsView:
        """What was evaluated after a step, counted from it."""
        return EvaluationsView([(step - start, cost) for step, cost in self.costs if step > start])

    def stalls(self, *, patience: int, min_delta: float, rest: int = 0) -> Iterator[int]:
        """The steps whose evaluation showed that the control metric has stopped improving, ascending.

        It has when it was not better than the best so far by more than `min_delta` for more than `patience`
        evaluations. Each time these are counted from 0 again, and the next `rest` evaluations do not count.
        """
        best, waited, resting = math.inf, 0, 0
        for step, cost in self.costs:
            better = cost < best - min_delta
            best, waited = (cost, 0) if better else (best, waited + 1)
            if resting:
                resting, waited = resting - 1, 0
            if waited > patience:
                resting, waited = rest, 0
                yield step


NOTHING_EVALUATED = EvaluationsView()
