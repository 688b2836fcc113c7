"""What a population promises when it is asked for: members can come to every value under way."""

from __future__ import annotations

from typing import Any

import pytest

from contracts.errors import InvalidRequest, Problem
from contracts.request import read_request
from contracts.request.changes import refused_changes
from contracts.request.population import Population
from contracts.request.search import read_search

BASE: dict[str, Any] = {
    "data": {"source": "digits"},
    "model": {"architecture": "mlp", "dropout": 0.1},
    "optimizer": {"type": "adamw", "learning_rate": 0.001},
    "training": {"epochs": 10},
    "export": {"formats": ["onnx"]},
}
SELDOM, SOMETIMES = {"validation": {"every_epochs": 3}}, {"when": {"optimizer.type": "adamw"}}
RATE = {"type": "float", "low": 1e-4, "high": 1e-1, "log": True}


def population(**changes: Any) -> Population:
    found = read_search({"method": "population", "base": BASE, "space": {"optimizer.learning_rate": RATE}} | changes)
    assert isinstance(found, Population)
    return found


def problems(**changes: Any) -> dict[str, Problem]:
    with pytest.raises(InvalidRequest) as refused:
        population(**changes)
    return {problem.path: problem for problem in refused.value.problems}


def test_what_is_written_out_is_read_again_as_the_same_population() -> None:
    found = population(size=5, factors=[0.5, 2], generation_epochs=3)
    assert read_search(found.resolved()) == found
    assert found.generations == (3, 6, 9)
    assert population().generations == tuple(range(1, 10))


def test_a_member_pauses_after_each_generation_and_is_neither_stopped_early_nor_exported() -> None:
    request = read_request(population(name="flock", generation_epochs=4).trial(3, {"optimizer.learning_rate": 0.02}))
    assert (request.name, request.optimizer.learning_rate, request.training.pauses) == ("flock-3", 0.02, (4, 8))
    assert not request.early_stopping.enabled
    assert not request.diagnosis.auto_fix
    assert request.export.formats == ()


@pytest.mark.parametrize(
    ("path", "domain", "said"),
    [
        ("model.hidden", [[8], [16]], "cannot go from [8] to [16]: the state has the shape"),
        ("model.dropout", {"type": "float", "low": 0.0, "high": 0.5}, "cannot go from 0.0 to 0.5"),
        ("training.batch_size", [32, 64], "cannot go from 32 to 64: steps are cut"),
        ("optimizer.type", ["adamw", "sgd"], "cannot go from 'adamw' to 'sgd'"),
        ("data.source", ["digits", "iris"], "cannot go from 'digits' to 'iris': the rows"),
    ],
)
def test_what_a_training_under_way_cannot_change_is_refused_by_its_value_and_with_a_cure(
    path: str, domain: Any, said: str
) -> None:
    problem = problems(space={path: domain})[f"space.{path}"]
    assert said in problem.message
    assert "method: search" in problem.cure
    assert problem.type == "hyperparameter"


@pytest.mark.parametrize(
    ("path", "domain"),
    [
        ("model.dropout", {"type": "float", "low": 0.01, "high": 0.5}),
        ("optimizer.weight_decay", {"type": "float", "low": 0.0, "high": 0.1}),
        ("training.grad_clip", {"type": "float", "low": 0.1, "high": 10.0, "log": True}),
        ("schedule.type", ["constant", "cosine"]),
        ("loss.label_smoothing", {"type": "float", "low": 0.0, "high": 0.2}),
    ],
)
def test_what_leaves_state_rows_and_steps_alone_may_change(path: str, domain: Any) -> None:
    base = BASE | {"loss": {"type": "cross_entropy"}}
    assert path in population(base=base, space={path: domain}, size=2).space


@pytest.mark.parametrize(
    ("changes", "path", "kind"),
    [
        ({"space": {"optimizer.weight_decay": [0.1, 0.2]}, "size": 3}, "size", "resource"),
        ({"generation_epochs": 10}, "generation_epochs", "convergence"),
        ({"base": BASE | {"training": {"epochs": 65}}, "generation_epochs": 1}, "generation_epochs", "convergence"),
        ({"base": BASE | SELDOM, "generation_epochs": 2}, "generation_epochs", "convergence"),
        ({"base": BASE | {"training": {"epochs": 9, "pauses": [3]}}}, "base.training.pauses", "hyperparameter"),
        ({"base": BASE | {"early_stopping": {"enabled": True}}}, "base.early_stopping.enabled", "convergence"),
        ({"base": BASE | {"limits": {"seconds": 9}}}, "base.limits", "hyperparameter"),
        ({"space": {"training.epochs": [5, 10]}, "size": 2}, "space", "hyperparameter"),
        ({"space": {"training.grad_clip": RATE | SOMETIMES}}, "space.training.grad_clip.when", "hyperparameter"),
        ({"space": {"optimizer.learnin_rate": RATE}}, "space.optimizer.learnin_rate", "hyperparameter"),
        ({"metric": "val_rmse"}, "metric", "convergence"),
        ({"metric": "loss"}, "metric", "convergence"),
    ],
)  # fmt: skip
def test_what_no_population_can_be_is_refused_where_it_is_said(changes: dict[str, Any], path: str, kind: str) -> None:
    problem = problems(**changes)[path]
    assert problem.type == kind
    assert problem.cure


def test_dropout_changes_in_a_fork_as_long_as_there_is_any() -> None:
    def request(dropout: float) -> Any:
        return read_request(BASE | {"model": {"architecture": "mlp", "dropout": dropout}})

    assert not list(refused_changes(request(0.1), request(0.4)))
    assert [problem.path for problem in refused_changes(request(0.0), request(0.4))] == ["model.dropout"]
