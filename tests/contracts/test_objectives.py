"""Which trial is better by several objectives: whoever dominates, weights in no unit, the same order every time."""

from __future__ import annotations

from math import inf, nan

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bus.frames import MAX_PAYLOAD
from contracts.errors import InvalidRequest
from contracts.hyperparameter_specialist import FrontTrial, SearchCompleted
from contracts.request import read_request
from contracts.request.objectives import Objective, costs, pareto_front, ranking, weigh
from contracts.request.search import MOST_COMPARED, read_search
from tests.contracts.test_search import BASE, RATE, problems, search

ACCURACY, SIZE = {"metric": "val_accuracy"}, {"metric": "parameters"}
FIGURES = st.one_of(st.sampled_from([0.0, 1.0, -1.0, inf, 1.7e308, -1.7e308, 5e-324]), st.floats(-10, 10))
FOUND = st.lists(st.tuples(FIGURES, FIGURES, FIGURES), max_size=12).map(lambda rows: dict(enumerate(rows)))


def test_less_is_better_of_losses_and_of_what_a_trial_took_and_a_direction_says_otherwise() -> None:
    wanted = [Objective(metric="val_loss"), Objective(metric="val_accuracy"), Objective(metric="seconds")]
    assert costs({"val_loss": 2.0, "val_accuracy": 0.5, "seconds": 3.0}, wanted) == (2.0, -0.5, 3.0)
    assert costs({"val_loss": nan, "seconds": -inf}, wanted) == (inf, inf, inf)
    assert costs({"bytes": 2.0}, [Objective(metric="bytes", direction="maximize")]) == (-2.0,)


def test_the_front_holds_what_nothing_dominates_and_equals_together() -> None:
    found = {0: (1.0, 5.0), 1: (1.0, 4.0), 2: (3.0, 1.0), 3: (3.0, 1.0), 4: (0.0, inf), 5: (3.0, 2.0)}
    assert pareto_front(found) == [1, 2, 3]
    assert pareto_front({}) == []


@settings(max_examples=200, deadline=None)
@given(FOUND, st.randoms(use_true_random=False))
def test_front_scores_and_ranking_are_the_same_in_any_order(
    found: dict[int, tuple[float, ...]], chance: object
) -> None:
    order = list(found)
    chance.shuffle(order)  # type: ignore[attr-defined]
    mixed = {number: found[number] for number in order}
    wanted = [Objective(metric=name) for name in ("val_loss", "seconds", "bytes")]
    weighted = [one.model_copy(update={"weight": weight}) for one, weight in zip(wanted, (1.0, 2.0, 0.5), strict=True)]
    for objectives in (wanted, weighted):
        assert ranking(mixed, objectives) == ranking(found, objectives)
        assert sorted(ranking(found, objectives)) == sorted(found)
    assert pareto_front(mixed) == pareto_front(found)
    scores = weigh(found, (1.0, 2.0, 0.5))
    assert weigh(mixed, (1.0, 2.0, 0.5)) == pytest.approx(scores)
    assert all(score >= 0 for score in scores.values())
    for one, mine in found.items():
        dominated = any(
            all(a <= b for a, b in zip(other, mine, strict=True)) and other != mine
            for other in found.values()
            if inf not in other
        )
        assert (one in pareto_front(found)) == (inf not in mine and not dominated)


def test_weights_have_no_unit_and_one_trial_that_is_very_bad_changes_nothing() -> None:
    found = {0: (0.1, 100.0), 1: (0.2, 50.0), 2: (0.4, 10.0)}
    scores = weigh(found, (2.0, 1.0))
    assert scores == pytest.approx({0: 0.75, 1: 1.0, 2: 2.0})
    scaled = {number: (each[0] * 1000, each[1] / 8) for number, each in found.items()}
    assert weigh(scaled, (2.0, 1.0)) == pytest.approx(scores)
    assert weigh(found, (4.0, 2.0)) == pytest.approx(scores)
    worse = weigh(found | {3: (1e6, 100.0), 4: (inf, 1.0)}, (2.0, 1.0))
    assert worse[4] == inf
    assert {number: worse[number] for number in found} == pytest.approx(scores)
    assert 1e6 < worse[3] < inf


def test_a_figure_that_half_of_the_trials_share_is_measured_by_the_worst_and_one_that_all_share_counts_nothing() -> (
    None
):
    assert weigh({0: (1.0,), 1: (1.0,), 2: (3.0,)}, (1.0,)) == {0: 0.0, 1: 0.0, 2: 1.0}
    assert weigh({0: (1.0, 2.0), 1: (2.0, 2.0)}, (1.0, 1.0)) == {0: 0.0, 1: 0.5}


def test_without_weights_whole_fronts_come_one_after_the_other_and_last_what_lacks_a_value() -> None:
    wanted = [Objective(metric="val_loss"), Objective(metric="seconds")]
    found = {0: (inf, 0.0), 1: (2.0, 2.0), 2: (1.0, 3.0), 3: (1.0, 1.0), 4: (2.0, 2.0)}
    assert ranking(found, wanted) == [3, 1, 2, 4, 0]


def test_what_is_written_out_of_objectives_is_read_again_and_training_goes_by_the_first_metric() -> None:
    found = search(objectives=[SIZE, ACCURACY, {"metric": "val_loss"}])
    assert (found.metric, found.weights) == ("val_accuracy", ())
    assert [one.minimizes for one in found.judged_by] == [True, False, True]
    assert read_search(found.resolved()) == found
    assert read_request(found.trial(0, {})).early_stopping.metric == "val_accuracy"
    weighted = search(
        objectives=[{**ACCURACY, "weight": 2}, {**SIZE, "weight": 1}, {"metric": "val_loss", "weight": 1}]
    )
    assert weighted.weights == (2, 1, 1)
    assert search(objectives=[ACCURACY, {"metric": "val_loss"}], metric="val_loss").metric == "val_loss"
    assert "objectives" not in search().resolved()
    assert [(one.metric, one.minimizes) for one in search(direction="maximize").judged_by] == [("val_loss", False)]


def test_everything_that_is_wrong_with_objectives_is_told_at_once_and_what_it_is_about() -> None:
    raw = {"base": BASE, "space": {"optimizer.learning_rate": RATE}}
    told = problems(raw | {"objectives": [{"metric": "accuracy", "weight": 0}, {"metric": "bytes", "direction": "up"}]})
    assert told.keys() == {"objectives.0.metric", "objectives.0.weight", "objectives.1.direction"}
    assert "is not recorded of a trial" in told["objectives.0.metric"]
    several = [{**ACCURACY, "weight": 1}, SIZE, {"metric": "val_rmse"}, {**SIZE, "weight": 1}]
    told = problems(raw | {"objectives": several, "direction": "minimize", "metric": "val_loss"})
    assert told.keys() == {
        "direction",
        "metric",
        "objectives.1.weight",
        "objectives.2.metric",
        "objectives.2.weight",
        "objectives.3.metric",
    }
    assert "'parameters' is there already" in told["objectives.3.metric"]
    assert problems(raw | {"objectives": [ACCURACY, SIZE], "trials": 1001}).keys() == {"trials"}
    told = problems(raw | {"objectives": [SIZE, {"metric": "seconds"}]})
    assert "none of them is a metric of the validation" in told["objectives"]
    assert "objectives" in problems(raw | {"objectives": [ACCURACY]})
    assert "objectives" in problems(raw | {"objectives": 3})
    listed = {**BASE, "validation": {"metrics": ["f1_macro"]}}
    told = problems(raw | {"base": listed, "objectives": [{"metric": "val_loss"}, ACCURACY]})
    assert told == {"objectives.1.metric": "is not among `validation.metrics` of the base. Add accuracy to that list."}
    with pytest.raises(InvalidRequest) as error:
        read_search(raw | {"objectives": several})
    assert {problem.type for problem in error.value.problems} == {"convergence"}


def test_a_thousand_trials_of_which_none_dominates_another_are_named_by_one_event_that_can_be_said() -> None:
    names = [f"val_metric_{place}" for place in range(8)]
    found = {
        number: tuple(0.1 * (number * (place + 7) % 1009) for place in range(7)) for number in range(MOST_COMPARED)
    }
    found = {number: (*each, -0.1 * sum(each)) for number, each in found.items()}
    front = pareto_front(found)
    assert len(front) == MOST_COMPARED
    named = [
        FrontTrial(
            number=number, session="00-agq7rxjuhn2hhptp3cs3bhofwa", values=dict(zip(names, found[number], strict=True))
        )
        for number in front
    ]
    told = SearchCompleted(
        trials=len(front), best_number=None, best_session=None, best_value=None, best_parameters={}, front=named
    )
    assert len(told.model_dump_json()) < MAX_PAYLOAD / 2
