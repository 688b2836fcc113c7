"""How a search ends none of whose trials keeps to its constraints. Pure."""

import math
from collections import Counter
from collections.abc import Collection, Iterable

from contracts.hyperparameter_specialist import SearchFailed, TrialFinished, TrialMeasured


def no_feasible_trial(infeasible: Iterable[TrialMeasured], finished: Collection[TrialFinished]) -> SearchFailed:
    """The end of a search none of whose trials keeps to all constraints: the nearest one, and what to change.

    Nearest is the trial whose excesses, as shares of their limits, add up to the least; of equals the earliest.
    """

    def distance(told: TrialMeasured) -> tuple[float, int]:
        return sum(excess for excess in told.excesses if excess > 0), told.number

    nearest = min(infeasible, key=distance)
    broken = [one for one in nearest.measures if one.excess > 0]
    told = "; ".join(one.words for one in broken)
    if math.isinf(distance(nearest)[0]):
        cure = f"See why: swarm show {nearest.session}"
    else:
        needed = ", ".join(f"{one.constraint} {one.value:.3g}" for one in broken)
        what = "more accurate" if {one.constraint for one in broken} == {"min_accuracy"} else "smaller"
        cure = f"Allow about {needed} under `constraints`, or have {what} models in the space."
    return SearchFailed(
        message=f"none of {len(finished)} trials keeps to the constraints. Nearest is trial {nearest.number}"
        f" (session {nearest.session}): {told}.",
        cure=cure,
        type="convergence" if all(one.constraint == "min_accuracy" for one in broken) else "resource",
        states=dict(sorted(Counter(trial.state for trial in finished).items())),
    )
