"""What a search request promises: it is read whole or refused with every problem, and its trials are requests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from contracts.errors import InvalidRequest
from contracts.request import read_request
from contracts.request.search import RangeTest, Search, read_search

BASE: dict[str, Any] = {
    "data": {"source": "digits"},
    "model": {"architecture": "mlp"},
    "optimizer": {"type": "adamw", "learning_rate": 0.001},
    "export": {"formats": ["onnx"]},
}
RATE = {"type": "float", "low": 1e-4, "high": 1e-1, "log": True}


def search(**changes: Any) -> Search:
    found = read_search({"base": BASE, "space": {"optimizer.learning_rate": RATE}} | changes)
    assert isinstance(found, Search)
    return found


def problems(raw: dict[str, Any]) -> dict[str, str]:
    with pytest.raises(InvalidRequest) as refused:
        read_search(raw)
    return {one.path: f"{one.message}. {one.cure}" for one in refused.value.problems}


def test_the_example_is_a_search() -> None:
    text = (Path(__file__).parents[2] / "examples" / "tune.yaml").read_text()
    found = read_search(yaml.safe_load(text))
    assert isinstance(found, Search)
    assert found.space["optimizer.learning_rate"].low == 1e-4  # type: ignore[union-attr]
    assert found.minimizes


def test_what_is_written_out_is_read_again_as_the_same_search() -> None:
    for found in (search(trials=5, sampler="tpe"), read_search({"method": "lr_range", "base": BASE})):
        assert read_search(found.resolved()) == found


def test_every_problem_is_told_at_once_with_its_path_and_cure() -> None:
    told = problems(
        {
            "base": {**BASE, "model": {"architecture": "mpl"}},
            "space": {
                "optimizer.learning_rate": {"type": "float", "low": 1, "high": 0.1},
                "model.dropout": {"type": "flaot", "low": 0},
                "training.epochs": {"type": "int", "low": "x", "high": 3},
            },
            "trials": 0,
            "samples": 3,
        }
    )
    assert set(told) == {
        "space.optimizer.learning_rate",
        "space.model.dropout.type",
        "space.training.epochs.low",
        "trials",
        "samples",
        "base.model.architecture",
    }
    assert "Make `low` smaller" in told["space.optimizer.learning_rate"]
    assert "Did you mean 'float'?" in told["space.model.dropout.type"]
    assert "Did you mean 'mlp'?" in told["base.model.architecture"]


@pytest.mark.parametrize(
    ("path", "domain", "cure"),
    [
        ("optimizer.learnin_rate", RATE, "Did you mean 'learning_rate'?"),
        ("optimiser.learning_rate", RATE, "Write section.key"),
        ("model.dropout", {"type": "float", "low": 0.0, "high": 1.5}, "less than 1"),
        ("model.architecture", {"type": "choice", "options": ["mlp", "svm"]}, "Known:"),
        ("early_stopping.metric", {"type": "choice", "options": ["val_loss"]}, "Leave them out."),
    ],
)
def test_a_parameter_that_a_trial_would_be_refused_for_is_refused_now(
    path: str, domain: dict[str, Any], cure: str
) -> None:
    told = problems({"base": BASE, "space": {path: domain}})
    assert any(one.startswith("space") and cure in said for one, said in told.items()), told


def test_a_metric_that_cannot_judge_the_base_is_refused() -> None:
    assert "metric" in problems({"base": BASE, "space": {"optimizer.learning_rate": RATE}, "metric": "val_rmse"})
    assert "metric" in problems({"base": BASE, "space": {"optimizer.learning_rate": RATE}, "metric": "loss"})


def test_logarithms_of_nothing_and_grids_without_end_are_refused() -> None:
    told = problems({"base": BASE, "space": {"model.dropout": {"type": "float", "low": 0, "high": 0.5, "log": True}}})
    assert "above 0" in told["space.model.dropout"]
    assert "sampler" in problems({"base": BASE, "space": {"optimizer.learning_rate": RATE}, "sampler": "grid"})


def test_an_unknown_method_and_a_missing_base_are_named() -> None:
    assert "Did you mean 'lr_range'?" in problems({"method": "lr-range", "base": BASE})["method"]
    assert set(problems({"space": {"optimizer.learning_rate": RATE}})) == {"base"}
    assert "space" in problems({"base": BASE})


def test_a_trial_is_a_request_with_the_values_put_in_and_is_not_exported() -> None:
    found = search(metric="val_accuracy", name="tries")
    request = read_request(found.trial(3, {"optimizer.learning_rate": 0.02, "model.dropout": 0.2}))
    assert request.name == "tries-3"
    assert request.optimizer.learning_rate == 0.02
    assert request.early_stopping.metric == "val_accuracy"
    assert request.export.formats == ()
    assert not request.diagnosis.auto_fix
    assert found.base == BASE
    kept = search(base=BASE | {"diagnosis": {"auto_fix": True}})
    assert read_request(kept.trial(0, {})).diagnosis.auto_fix


def test_the_direction_follows_from_the_metric_unless_it_is_given() -> None:
    assert search().minimizes
    assert not search(metric="val_accuracy").minimizes
    assert not search(direction="maximize").minimizes


def test_a_grid_has_every_combination_once() -> None:
    space = {
        "model.hidden": {"type": "choice", "options": [[16], [32]]},
        "training.epochs": {"type": "int", "low": 1, "high": 5, "step": 2},
    }
    found = search(space=space)
    rows = [found.combination(number) for number in range(6)]
    assert found.grid_size == len({str(row) for row in rows}) == 6
    assert rows[1] == {"model.hidden": [16], "training.epochs": 3}
    assert search().grid_size is None


@pytest.mark.parametrize("sampler", ["auto", "grid"])
def test_whole_numbers_without_end_are_counted_and_never_listed(sampler: str) -> None:
    space = {
        "reproducibility.seed": {"type": "int", "low": 0, "high": 2**63 - 1},
        "data.split.seed": {"type": "int", "low": 0, "high": 2**63 - 1},
    }
    found = search(space=space, sampler=sampler)
    assert found.grid_size == 2**126
    assert found.combination(2**63 + 5) == {"reproducibility.seed": 1, "data.split.seed": 5}


def test_overrides_reach_into_the_base() -> None:
    found = read_search(search().resolved(), overrides=["trials=3", "base.training.epochs=2"])
    assert isinstance(found, Search)
    assert (found.trials, found.base["training"]["epochs"]) == (3, 2)


def test_a_range_test_has_bounds_of_its_own() -> None:
    found = read_search({"method": "lr_range", "base": BASE, "low": "1e-6", "steps": 50})
    assert isinstance(found, RangeTest)
    assert (found.low, found.steps) == (1e-6, 50)
    assert "steps" in problems({"method": "lr_range", "base": BASE, "steps": 3})


def test_a_search_over_a_setting_of_the_default_kind_needs_no_kind() -> None:
    bare = {name: section for name, section in BASE.items() if name != "optimizer"}
    found = search(base=bare)
    assert found.base == bare
    asked = read_request(found.trial(1, {"optimizer.learning_rate": 0.02})).optimizer
    assert (asked.type, asked.learning_rate) == ("adamw", 0.02)
    assert "Did you mean 'learning_rate'?" in problems({"base": bare, "space": {"optimizer.learnin_rate": RATE}}).get(
        "space.optimizer.learnin_rate", ""
    )


CONDITIONAL = {
    "optimizer.type": ["adamw", "sgd", "lion"],
    "optimizer.momentum": {"type": "choice", "options": [0.8, 0.9], "when": {"optimizer.type": "sgd"}},
    "optimizer.nesterov": {"type": "choice", "options": [True, False], "when": {"optimizer.momentum": [0.9]}},
}
BARE = {name: section for name, section in BASE.items() if name != "optimizer"}


def test_a_plain_list_is_a_choice_and_what_is_not_used_is_not_written() -> None:
    found = search(space={"model.hidden": [[16], [32]]})
    assert found.resolved()["space"] == {"model.hidden": {"type": "choice", "options": [[16], [32]]}}
    assert not {"epochs", "seconds"} & found.resolved().keys()
    assert search(epochs=40, seconds=1.5) == read_search(search(epochs=40, seconds=1.5).resolved())


def test_a_grid_has_a_parameter_only_where_its_conditions_hold() -> None:
    found = search(base=BARE, space=CONDITIONAL)
    assert found.resolved() == search(base=BARE, space=found.resolved()["space"]).resolved()
    rows = [found.combination(number) for number in range(found.grid_size or 0)]
    assert rows == [
        {"optimizer.type": "adamw"},
        {"optimizer.type": "sgd", "optimizer.momentum": 0.8},
        {"optimizer.type": "sgd", "optimizer.momentum": 0.9, "optimizer.nesterov": True},
        {"optimizer.type": "sgd", "optimizer.momentum": 0.9, "optimizer.nesterov": False},
        {"optimizer.type": "lion"},
    ]


def test_a_grid_is_not_counted_over_very_many_values_on_which_others_depend() -> None:
    seed = {"type": "int", "low": 0, "high": 5000}
    rate = {"type": "choice", "options": [0.1, 0.2], "when": {"reproducibility.seed": 1}}
    space = {"reproducibility.seed": seed, "model.dropout": rate}
    assert search(space=space).grid_size is None
    assert "sampler" in problems({"base": BASE, "space": space, "sampler": "grid"})
    assert search(space={**space, "reproducibility.seed": seed | {"high": 9}}).grid_size == 11
    early = {"early_stopping.enabled": [True, False], "early_stopping.patience": rate | {"options": [3, 4]}}
    early["early_stopping.patience"]["when"] = {"early_stopping.enabled": 1}
    assert "1 is none of its values" in str(problems({"base": BASE, "space": early}))


def test_conditions_that_cannot_be_are_named() -> None:
    space = {
        "optimizer.type": ["adamw", "sgd"],
        "optimizer.momentum": {"type": "choice", "options": [0.9], "when": {"optimizer.typ": ["sgd"]}},
        "model.dropout": {"type": "float", "low": 0.0, "high": 0.5, "when": {"optimizer.type": "sdg"}},
        "model.hidden": {"type": "choice", "options": [[8]], "when": {"model.hidden": [[8]]}},
    }
    told = problems({"base": BARE, "space": space, "sampler": "gp"})
    assert told == {
        "space.optimizer.momentum.when": "'optimizer.typ' is not in the space. Did you mean 'optimizer.type'?",
        "space.model.hidden.when": "depends on itself. Let a parameter depend on others alone.",
        "space.model.dropout.when.optimizer.type": (
            "'sdg' is none of its values. Name a value that optimizer.type can have."
        ),
        "sampler": told["sampler"],
    }
    assert "Write `sampler: tpe`" in told["sampler"]


def test_one_item_of_a_list_that_has_a_default_can_be_searched() -> None:
    found = search(space={"model.hidden.0": {"type": "int", "low": 8, "high": 16}})
    hidden = read_request(BASE).resolved()["model"]["hidden"]
    assert len(hidden) > 1
    assert found.trial(1, {"model.hidden.0": 9})["model"]["hidden"] == [9, *hidden[1:]]


def test_trials_that_are_halved_pause_at_rungs_below_their_length_and_nothing_else_pauses_them() -> None:
    base = BASE | {"training": {"epochs": 52}}
    found = search(base=base, halving={})
    assert (found.rungs, search(base=base).rungs) == ((4, 8, 16, 32), ())
    assert search(base=base, halving={"first_epochs": 2, "factor": 3}).rungs == (2, 6, 18)
    assert read_request(found.trial(1, {})).training.pauses == found.rungs
    assert "pauses" not in read_request(search(base=base).trial(1, {})).resolved()["training"]
    space = {"optimizer.learning_rate": RATE}
    told = problems({"base": base, "space": space, "halving": {"first_epochs": 52}})
    assert "so there is no rung" in told["halving.first_epochs"]
    long = {"training": {"epochs": 10**6}}
    assert (
        "20 rungs" in problems({"base": BASE | long, "space": space, "halving": {"first_epochs": 1}})["halving.factor"]
    )
    paused = BASE | {"training": {"pauses": [1]}}
    assert "base.training.pauses" in problems({"base": paused, "space": space})
    choice = {"type": "choice", "options": [[1]]}
    assert "space" in problems({"base": base, "space": {"training.pauses": choice}})


def test_each_problem_says_what_it_is_about() -> None:
    raw = {"base": BASE, "space": {"model.dropot": RATE}, "trials": 0, "metric": "accuracy", "seconds": -1}
    with pytest.raises(InvalidRequest) as error:
        read_search(raw)
    told = {problem["path"]: problem["type"] for problem in error.value.as_json()["problems"]}
    assert told == {"trials": "resource", "seconds": "resource", "metric": "convergence"}
    with pytest.raises(InvalidRequest) as error:
        read_search({"base": BASE, "space": {"model.dropot": RATE}})
    assert {problem.type for problem in error.value.problems} == {"hyperparameter"}
    with pytest.raises(InvalidRequest) as error:
        read_request({})
    assert "type" not in error.value.as_json()["problems"][0]


def test_each_trial_has_every_seed_and_what_cannot_be_is_told() -> None:
    base = BASE | {"reproducibility": {"seed": 2**63 - 1}}
    found = search(base=base, seeds=3)
    assert found.training_seeds == (2**63 - 1, 0, 1)
    assert search(seeds=2).training_seeds == (42, 43)
    assert search(seeds=[7, 3]).training_seeds == (7, 3)
    assert search().training_seeds == ()
    assert "reproducibility" not in search().trial(0, {})
    assert [read_request(found.trial(4, {}, place)).reproducibility.seed for place in range(3)] == [2**63 - 1, 0, 1]
    for each in (search(seeds=3), search(seeds=[1, 2])):
        assert read_search(each.resolved()) == each
    raw = {"base": BASE, "space": {"optimizer.learning_rate": RATE}}
    assert "seeds" in problems(raw | {"seeds": 0})
    assert problems(raw | {"seeds": [1, -1]}).keys() == {"seeds.1"}
    assert "there twice" in problems(raw | {"seeds": [1, 1]})["seeds"]
    assert "12000 sessions" in problems(raw | {"seeds": 3, "trials": 4000})["seeds"]
    space = {"reproducibility.seed": {"type": "int", "low": 0, "high": 5}}
    told = problems(raw | {"space": space, "seeds": [1, 1]})
    assert told.keys() == {"space.reproducibility.seed", "seeds"}
    with pytest.raises(InvalidRequest) as error:
        read_search(raw | {"seeds": 99})
    assert [problem.type for problem in error.value.problems] == ["resource"]


MODELS = [{"architecture": "mlp", "hidden": [16]}, {"architecture": "cnn", "channels": [4]}]


def test_a_whole_model_is_a_choice_and_what_lies_in_it_may_depend_on_its_kind() -> None:
    dropout = {"type": "float", "low": 0.1, "high": 0.5, "when": {"model.architecture": "mlp"}}
    channels = {"type": "choice", "options": [[4], [8]], "when": {"model.architecture": ["cnn"]}}
    found = search(space={"model.dropout": dropout, "model.channels": channels, "model": MODELS})
    assert found.order[0] == "model"
    assert found.applies("model.dropout", {"model": MODELS[0]})
    assert not found.applies("model.dropout", {"model": MODELS[1]})
    trial = {"model.dropout": 0.25, "model": MODELS[0], "optimizer.learning_rate": 0.01}
    request = read_request(found.trial(0, trial))
    assert (request.model.architecture, request.model.hidden, request.model.dropout) == ("mlp", (16,), 0.25)  # type: ignore[union-attr]
    assert found.parameters(request.resolved()) == {"model.dropout": 0.25, "model": MODELS[0]}
    request = read_request(found.trial(1, {"model": MODELS[1], "model.channels": [8]}))
    assert found.parameters(request.resolved()) == {"model": MODELS[1], "model.channels": [8]}


def test_a_grid_over_whole_models_has_what_depends_on_them_where_it_applies() -> None:
    depth = {"type": "choice", "options": [0.1, 0.2], "when": {"model.architecture": "mlp"}}
    found = search(space={"model": MODELS, "model.dropout": depth, "training.batch_size": [16, 32]})
    rows = [found.combination(number) for number in range(found.grid_size or 0)]
    assert [(row["model"]["architecture"], row.get("model.dropout")) for row in rows] == [  # type: ignore[index]
        ("mlp", 0.1),
        ("mlp", 0.1),
        ("mlp", 0.2),
        ("mlp", 0.2),
        ("cnn", None),
        ("cnn", None),
    ]


def test_a_request_tells_which_of_several_spellings_it_came_from() -> None:
    spelled = [{"architecture": "mlp"}, {"architecture": "mlp", "hidden": [32]}]
    found = search(space={"model": spelled})
    for option in spelled:
        assert found.parameters(read_request(found.trial(0, {"model": option})).resolved()) == {"model": option}


def test_a_model_that_cannot_be_and_a_kind_that_no_model_has_are_refused() -> None:
    space = {
        "model": [*MODELS, {"architecture": "mlp", "hiden": [3]}],
        "model.dropout": {"type": "float", "low": 0.1, "high": 0.5, "when": {"model.architecture": "resnet"}},
    }
    told = problems({"base": BASE, "space": space})
    assert "Did you mean 'hidden'?" in told["space.model"]
    assert "none of its values" in told["space.model.dropout.when.model.architecture"]
