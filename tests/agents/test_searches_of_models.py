"""Searches over whole models: each kind with what it has alone, known again after a crash, trained once if equal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agents.hyperparameter_specialist.jobs.ask import ask
from agents.hyperparameter_specialist.progress import Past, base_parameters, sampler_of
from bus.memory import MemoryBus
from contracts.hyperparameter_specialist import SearchCompleted, SearchState
from contracts.ids import session_for
from contracts.request import read_request
from contracts.request.search import Search, read_search
from runtime.views.formatting import in_words
from tests import harness
from tests.agents.test_hyperparameter_specialist import swarm

MLP, CNN = {"architecture": "mlp", "hidden": [8]}, {"architecture": "cnn", "channels": [4]}
KINDS: dict[str, Any] = {
    "model": [MLP, CNN],
    "model.activation": {"type": "choice", "options": ["relu", "tanh"], "when": {"model.architecture": "mlp"}},
}


def searched(**changes: Any) -> dict[str, Any]:
    base = {name: section for name, section in harness.small_request().items() if name != "model"}
    base |= {"model": {"architecture": "mlp", "hidden": [8]}, "training": {"epochs": 1, "batch_size": 64}}
    return read_search({"base": base, "space": {"model": [MLP, CNN]}} | changes).resolved()


@pytest.mark.parametrize(("sampler", "space"), [("random", KINDS), ("tpe", KINDS), ("gp", {"model": [MLP, CNN]})])
def test_every_sampler_chooses_whole_models_and_learns_which_kind_is_the_better_one(
    sampler: str, space: dict[str, Any]
) -> None:
    wanted = Search.model_validate(searched(space=space, sampler=sampler, trials=30))
    past: list[Past] = []
    for number in range(18):
        chosen = ask(wanted, sampler, number, past)
        assert ("model.activation" in chosen) == ("model.activation" in space and chosen["model"] == MLP)
        read_request(wanted.trial(number, chosen))
        past.append(Past(chosen, "complete", 1.0 if chosen["model"] == MLP else 0.1 + number / 1000))
    kinds = [trial.parameters["model"] for trial in past]
    assert kinds[:12].count(MLP) > 0 < kinds.count(CNN)
    if sampler != "random":
        assert kinds[12:].count(CNN) > kinds[12:].count(MLP)


def test_the_base_is_one_of_the_models_however_it_is_spelled() -> None:
    wanted = Search.model_validate(searched(space=KINDS))
    assert base_parameters(wanted) == {"model": MLP, "model.activation": "relu"}
    assert sampler_of(wanted) == "grid"


def test_a_model_is_told_by_its_kind_and_what_it_says() -> None:
    told = in_words({"model": {"hidden": [8, 8], "architecture": "mlp", "dropout": 0.123456}, "optimizer.type": "sgd"})
    assert told == "model mlp (hidden [8, 8], dropout 0.1235), optimizer.type sgd"
    assert in_words({"model": {"architecture": "cnn"}}) == "model cnn"


async def test_models_of_two_kinds_are_trained_on_digits_and_what_is_equal_is_trained_once(tmp_path: Path) -> None:
    spelled = {"dropout": 0, "hidden": [8], "architecture": "mlp"}
    async with harness.crew(tmp_path) as made:
        raw = searched(space={"model": [MLP, CNN, spelled]}, sampler="grid")
        ended = await harness.until_ended(made, await made.ground.submit(raw, "search", asked_by="me"))
    state = SearchState.of(ended)
    assert [one.state for one in state.finished] == ["completed", "completed", "repeated"]
    assert [one.same_as for one in state.trials] == [None, None, 0]
    assert state.trials[2].session == state.trials[0].session


async def test_wide_and_deep_models_are_halved_on_iris(tmp_path: Path) -> None:
    base = harness.small_request(data={"source": "iris"}, training={"epochs": 2, "batch_size": 16})
    models = [{"architecture": "mlp", "hidden": hidden} for hidden in ([4], [32], [8, 8])]
    raw = searched(base=base, space={"model": models}, sampler="grid", halving={"first_epochs": 1})
    async with harness.crew(tmp_path) as made:
        ended = await harness.until_ended(made, await made.ground.submit(raw, "search", asked_by="me"))
    state = SearchState.of(ended)
    assert [len(one.kept) for one in state.rungs] == [2]
    assert sorted(one.state for one in state.finished) == ["completed", "completed", "stopped"]
    assert isinstance(ended.outcome, SearchCompleted)
    assert ended.outcome.best_parameters["model"] in models


async def test_a_trial_of_a_whole_model_that_was_never_told_of_is_known_by_its_option(tmp_path: Path) -> None:
    raw, bus, session = searched(trials=2, sampler="random"), MemoryBus(), session_for("mine")
    early = read_request(Search.model_validate(raw).trial(0, {"model": CNN})).resolved()
    async with harness.crew(tmp_path, ("ledger",), bus=bus) as made:
        trial = await made.ground.submit(early, "trial", asked_by="x", request_id=f"{session}-trial-0")
    async with swarm(tmp_path, bus=bus) as made:
        await made.ground.submit(raw, "search", asked_by="me", request_id="mine")
        ended = await harness.until_ended(made, session)
    first = SearchState.of(ended).trials[0]
    assert (first.session, first.parameters) == (trial, {"model": CNN})
    assert ended.state == "completed"
