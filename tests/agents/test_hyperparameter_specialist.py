"""What the hyperparameter specialist promises: the log alone decides the next trial, and a restart changes nothing."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.hyperparameter_specialist import curve
from agents.hyperparameter_specialist.halving import decide_rung, rung_score
from agents.hyperparameter_specialist.jobs import TrialQuestion, choose_parameters
from agents.hyperparameter_specialist.jobs.ask import ask
from agents.hyperparameter_specialist.progress import Past, SearchProgress, base_parameters, sampler_of
from bus.memory import MemoryBus
from contracts.errors import InvalidRequest
from contracts.hyperparameter_specialist import (
    SEARCH,
    RungDecided,
    SearchCancelled,
    SearchCompleted,
    SearchFailed,
    SearchState,
    TrialFinished,
    TrialPaused,
    TrialStarted,
)
from contracts.operator import SessionRequested
from contracts.request import read_request
from contracts.request.search import Search, read_search
from contracts.request.space import inside
from contracts.session import SessionState
from contracts.trainer import ControlEvaluated, TrainingCompleted, TrainingFailed
from runtime.host.swarm_node import SwarmNode
from runtime.jobs.children import Children
from runtime.node.agent import Agent, on
from runtime.node.agent_context import Wakeup
from runtime.node.node import wake_subjects
from runtime.views.view import problem
from tests import harness

DIGEST = "0" * 64
RATE = "optimizer.learning_rate"


def searched(**changes: Any) -> dict[str, Any]:
    raw = {
        "base": harness.small_request(),
        "space": {
            RATE: {"type": "float", "low": 1e-4, "high": 1e-1, "log": True},
            "model.dropout": {"type": "float", "low": 0.0, "high": 0.5},
        },
        "trials": 6,
        "sampler": "tpe",
        "seed": 3,
    }
    return read_search(raw | changes).resolved()


def search(**changes: Any) -> Search:
    return Search.model_validate(searched(**changes))


def worth(parameters: dict[str, Any]) -> float:
    """How good some parameters are: smallest at a rate of 0.01 without dropout."""
    rate = parameters.get(RATE, 0.001)
    return (math.log10(rate) + 2) ** 2 + float(parameters.get("model.dropout", 0.0))


def told(number: int, parameters: dict[str, Any]) -> TrialFinished:
    return TrialFinished(number=number, session=str(number), state="completed", value=worth(parameters), epochs=1)


# Choosing


def simulated(wanted: Search, chance: random.Random) -> list[dict[str, Any]]:
    """All trials of a search whose running trials end in any order and at any moment."""
    started: dict[int, TrialStarted] = {}
    finished: dict[int, TrialFinished] = {}
    while True:
        progress = SearchProgress(wanted, started, finished)
        if progress.complete:
            return [started[number].parameters for number in sorted(started)]
        number, running = progress.next_number(), sorted(progress.running)
        if number is not None and (not running or chance.random() < 0.5):
            past = progress.before(number)
            parameters = ask(wanted, sampler_of(wanted), number, past)
            started[number] = TrialStarted(number=number, session=str(number), parameters=parameters)
        elif running:
            ended = chance.choice(running)
            finished[ended] = told(ended, started[ended].parameters)


@settings(max_examples=15, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(1, 4), st.sampled_from(["tpe", "random"]))
def test_the_same_seed_makes_the_same_trials_whatever_ends_first(
    chance: random.Random, parallel: int, sampler: str
) -> None:
    wanted = search(parallel=parallel, sampler=sampler, trials=9)
    assert simulated(wanted, chance) == simulated(wanted, random.Random(0))


def test_another_seed_makes_other_trials() -> None:
    first, second = (simulated(search(seed=seed), random.Random(0)) for seed in (1, 2))
    assert first != second


def test_an_answer_depends_on_the_trials_before_it_and_on_nothing_kept() -> None:
    wanted = search(trials=20)
    trials = simulated(wanted, random.Random(0))
    started = {n: TrialStarted(number=n, session="", parameters=one) for n, one in enumerate(trials)}
    finished = {n: told(n, one) for n, one in enumerate(trials)}
    for number in (19, 7, 12, 0):
        past = SearchProgress(wanted, started, finished).before(number)
        assert ask(wanted, "tpe", number, past) == trials[number]


def test_what_has_failed_is_told_as_failed_and_is_never_the_best() -> None:
    wanted = search(trials=3)
    started = {n: TrialStarted(number=n, session="", parameters={RATE: 0.01, "model.dropout": 0.1}) for n in range(3)}
    finished = {
        0: TrialFinished(number=0, session="0", state="failed"),
        1: TrialFinished(number=1, session="1", state="completed", value=2.0),
        2: TrialFinished(number=2, session="2", state="cancelled"),
    }
    progress = SearchProgress(wanted, started, finished)
    assert [one.state for one in progress.before(3)] == ["failed", "complete", "failed"]
    assert ask(wanted, "tpe", 3, progress.before(3))
    conclusion = progress.conclusion()
    assert isinstance(conclusion, SearchCompleted)
    assert (conclusion.best_number, conclusion.best_value, conclusion.trials) == (1, 2.0, 3)


@pytest.mark.parametrize(
    ("asked", "values", "best"),
    [
        ({}, [0.5, 0.25, 0.75], 1),
        ({"metric": "val_accuracy"}, [0.5, 0.25, 0.75], 2),
        ({"direction": "maximize"}, [0.5, 0.25, 0.75], 2),
        ({"metric": "val_accuracy", "direction": "minimize"}, [0.5, 0.25, 0.75], 1),
        ({}, [0.5, 0.25, 0.25], 1),
        ({"metric": "val_accuracy"}, [0.25, 0.75, 0.75], 1),
        ({"metric": "val_accuracy"}, [None, -0.5, None], 1),
        ({"metric": "val_accuracy"}, [None, None, None], None),
    ],
)
def test_the_best_is_the_largest_where_more_is_better_and_the_earliest_of_equals(
    asked: dict[str, str], values: list[float | None], best: int | None
) -> None:
    ended = {n: TrialFinished(number=n, session="", state="completed", value=one) for n, one in enumerate(values)}
    found = SearchProgress(search(**asked), {}, dict(reversed(ended.items()))).best()
    assert (None if found is None else found.number) == best


def test_lists_are_options_like_any_other() -> None:
    wanted = search(space={"model.hidden": {"type": "choice", "options": [[8], [16, 16]]}}, sampler="tpe")
    past = [Past({"model.hidden": [16, 16]}, "complete", 0.5)]
    assert ask(wanted, "tpe", 1, past)["model.hidden"] in ([8], [16, 16])


def test_whole_numbers_stay_on_their_steps() -> None:
    space = {"training.batch_size": {"type": "int", "low": 8, "high": 30, "step": 5}}
    wanted = search(space=space, sampler="random")
    assert {ask(wanted, "random", n, [])["training.batch_size"] for n in range(20)} <= {8, 13, 18, 23, 28}


def test_the_base_is_tried_first_when_the_space_holds_it() -> None:
    assert base_parameters(search()) == {RATE: 0.001, "model.dropout": 0.1}
    assert base_parameters(search(space={RATE: {"type": "float", "low": 0.5, "high": 1.0}})) is None


def test_auto_tries_everything_when_that_is_little_and_learns_where_it_is_much() -> None:
    few = {"model.hidden": {"type": "choice", "options": [[8], [16]]}}
    assert sampler_of(search(sampler="auto", space=few)) == "grid"
    assert sampler_of(search(sampler="auto")) == "gp"
    assert sampler_of(search(sampler="auto", trials=150)) == "gp"
    assert sampler_of(search(sampler="auto", trials=151)) == "tpe"


CONDITIONAL: dict[str, Any] = {
    "optimizer.type": ["adamw", "sgd"],
    RATE: {"type": "float", "low": 1e-4, "high": 1e-1, "log": True},
    "optimizer.momentum": {"type": "float", "low": 0.1, "high": 0.9, "when": {"optimizer.type": "sgd"}},
}


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_a_parameter_is_chosen_where_its_condition_holds_and_nowhere_else(sampler: str) -> None:
    base = {name: section for name, section in harness.small_request().items() if name != "optimizer"}
    wanted = search(base=base, space=CONDITIONAL, sampler=sampler, trials=30)
    assert sampler_of(wanted.model_copy(update={"sampler": "auto"})) == "tpe"
    assert base_parameters(wanted) == {"optimizer.type": "adamw", RATE: 0.001}
    trials = simulated(wanted, random.Random(0))
    assert trials == simulated(wanted, random.Random(1))
    assert {one["optimizer.type"] for one in trials} == {"adamw", "sgd"}
    assert all(("optimizer.momentum" in one) == (one["optimizer.type"] == "sgd") for one in trials)


@pytest.mark.parametrize("parallel", [1, 3])
def test_a_budget_of_epochs_ends_a_search_after_the_same_trial_whatever_ends_first(parallel: int) -> None:
    wanted = search(parallel=parallel, sampler="random", trials=9, epochs=5)
    # Each trial has trained for one epoch, and a trial counts once every one of its window has ended.
    assert {len(simulated(wanted, random.Random(seed))) for seed in range(10)} == {5 + parallel - 1}


def test_a_gaussian_process_keeps_to_the_space_and_finds_what_is_best_in_it() -> None:
    space = {
        RATE: {"type": "float", "low": 1e-4, "high": 1e-1, "log": True},
        "training.batch_size": {"type": "int", "low": 8, "high": 200, "step": 8},
        "loss.type": ["cross_entropy", "focal"],
    }
    wanted, past = search(space=space, sampler="gp", trials=25), list[Past]()
    while len(past) < 25:
        chosen = ask(wanted, "gp", len(past), past)
        assert all(inside(wanted.space[path], value) for path, value in chosen.items())
        rate, size = float(str(chosen[RATE])), int(str(chosen["training.batch_size"]))
        cost = (math.log10(rate) + 2) ** 2 + ((size - 64) / 64) ** 2 + (chosen["loss.type"] == "focal")
        past.append(Past(chosen, "complete", cost))
    best = min(past, key=lambda trial: trial.value or 0.0)
    assert (best.parameters["training.batch_size"], best.parameters["loss.type"]) == (64, "cross_entropy")
    assert (best.value or 0.0) < 1e-3


async def test_a_gaussian_process_in_a_child_answers_the_same_twice(tmp_path: Path) -> None:
    wanted = search(sampler="gp")
    points = [{RATE: 10 ** -(1 + n / 2), "model.dropout": n / 20} for n in range(6)]
    past = [Past(one, "complete", worth(one)) for one in points]
    question = TrialQuestion(wanted.resolved(), "gp", 6, past)
    children = Children()
    try:
        answers = [await children.run(choose_parameters, question, log=tmp_path / "log") for _ in range(2)]
    finally:
        await children.close()
    assert answers[0] == answers[1]
    assert worth(answers[0]) < 4


# Halving


def test_what_rises_late_goes_on_before_what_has_stopped_and_nothing_before_what_has_no_value() -> None:
    rising, flat = (rung_score(0.6, earlier, minimizes=False) for earlier in (0.3, 0.6))
    assert rising < flat < rung_score(math.nan, 0.5, minimizes=False)
    assert (
        rung_score(1.0, 2.0, minimizes=True)
        < rung_score(1.0, None, minimizes=True)
        < rung_score(None, 1.0, minimizes=True)
    )
    scores = {0: 3.0, 1: 1.0, 2: math.inf, 3: 1.0, 4: 2.0}
    assert decide_rung(scores, 2) == ((1, 3, 4), (0, 2))
    assert decide_rung({7: 1.0}, 4).kept == (7,)


def test_a_trial_that_has_no_finite_value_at_its_first_rung_has_failed_for_those_that_follow() -> None:
    wanted = search(trials=3, halving={"first_epochs": 1})
    started = {0: TrialStarted(number=0, session="0", parameters={RATE: 0.1, "model.dropout": 0.0})}
    waits = {0: [TrialPaused(number=0, rung=0, epochs=1, value=math.nan)]}
    past = SearchProgress(wanted, started, {}, paused=waits).before(1)
    assert [one.state for one in past] == ["failed"]
    assert ask(wanted, "tpe", 1, past)


def halved(wanted: Search, chance: random.Random) -> tuple[list[dict[str, Any]], list[RungDecided], dict[int, int]]:
    """A search whose trials come to their rungs in any order: all trials, the decisions, and each trial's epochs."""
    epochs, search_state = {}, SearchState()
    while True:
        session = SessionState("s", own=search_state)
        progress = SearchProgress.of(session, wanted)
        number, training = progress.next_number(), progress.training
        if progress.complete:
            return [one.parameters for one in search_state.trials], list(search_state.rungs), epochs
        if (decision := progress.rung_decision()) is not None:
            told: Any = decision
            assert number is None
        elif number is not None and (not training or chance.random() < 0.5):
            parameters = ask(wanted, "random", number, progress.before(number))
            told = TrialStarted(number=number, session=str(number), parameters=parameters)
        elif stopped := [one for one in progress.running if one in progress.stopped]:
            told = TrialFinished(number=stopped[0], session="", state="stopped", epochs=epochs[stopped[0]])
        else:
            one = chance.choice(training)
            rung, value = progress.rung(one), worth(search_state.trials[one].parameters)
            if rung < len(wanted.rungs):
                epochs[one] = wanted.rungs[rung]
                told = TrialPaused(number=one, rung=rung, epochs=epochs[one], value=value, earlier=value)
            else:
                epochs[one] = 16
                told = TrialFinished(number=one, session="", state="completed", value=value, epochs=16)
        fold = SEARCH.folds[type(told)]
        search_state = fold(search_state, told, None)


@pytest.mark.parametrize("parallel", [1, 3])
def test_halving_decides_the_same_whatever_order_trials_come_to_their_rungs_in(parallel: int) -> None:
    base = harness.small_request(training={"epochs": 16, "batch_size": 64})
    wanted = search(base=base, trials=8, parallel=parallel, sampler="random", halving={"first_epochs": 2, "factor": 2})
    assert wanted.rungs == (2, 4, 8)
    first = halved(wanted, random.Random(0))
    assert all(halved(wanted, random.Random(seed)) == first for seed in range(1, 6))
    trials, decisions, epochs = first
    assert [(one.epochs, len(one.kept), len(one.stopped)) for one in decisions] == [(2, 4, 4), (4, 2, 2), (8, 1, 1)]
    assert decisions[-1].kept == [min(range(8), key=lambda number: worth(trials[number]))]
    assert sorted(epochs.values()) == [2, 2, 2, 2, 4, 4, 8, 16]


async def test_halved_trials_freeze_and_thaw_and_a_search_that_dies_between_goes_on(tmp_path: Path) -> None:
    base = harness.small_request(training={"epochs": 4, "batch_size": 64})
    raw = searched(base=base, trials=4, parallel=2, sampler="random", halving={"first_epochs": 1})
    bus = MemoryBus()
    async with harness.crew(tmp_path, bus=bus) as made:
        session = await requested(made, raw)
        await harness.until_said(made, session, "rung.decided")
    async with harness.crew(tmp_path, bus=bus) as made:
        ended = await harness.until_ended(made, session)
        state = SearchState.of(ended)
        logs = {one.number: made.tail.history(one.session) for one in state.trials}
    assert isinstance(ended.outcome, SearchCompleted)
    assert [(one.epochs, len(one.kept), len(one.stopped)) for one in state.rungs] == [(1, 2, 2), (2, 1, 1)]
    assert sorted((one.state, one.epochs) for one in state.finished) == [
        ("completed", 4),
        ("stopped", 1),
        ("stopped", 1),
        ("stopped", 2),
    ]
    assert ended.outcome.best_number == state.rungs[-1].kept[0]
    # Every epoch of every trial was trained once.
    told = [fact.name for log in logs.values() for fact in log.facts]
    assert (told.count("control.evaluated"), told.count("windows.reproduced")) == (4 + 1 + 1 + 2, 0)


# Searching


class Oracle(Agent):
    """In the trainer's place: it knows at once what a training would have come to."""

    role = "trainer"
    broken: frozenset[int] = frozenset()
    gate: asyncio.Event | None = None

    @on
    async def foresee(
        self, asked: SessionRequested, case: Wakeup
    ) -> list[ControlEvaluated | TrainingCompleted | TrainingFailed]:
        if asked.kind != "trial":
            return []
        if self.gate is not None:
            await self.gate.wait()
        if int(asked.request["name"].rpartition("-")[2]) in self.broken:
            return [TrainingFailed(segment=1, step=0, code="x", message="broken")]
        optimizer, model = asked.request["optimizer"], asked.request["model"]
        value = worth({RATE: optimizer["learning_rate"], "model.dropout": model["dropout"]})
        evaluated = ControlEvaluated(
            segment=1,
            step=1,
            epoch=1,
            values={"val_loss": value, "val_accuracy": 2 * model["dropout"]},
            metric="val_loss",
            improved=True,
            best=value,
            best_step=1,
            patience_left=1,
            stop=False,
        )
        completed = TrainingCompleted(
            segment=1,
            step=1,
            epochs=1,
            stopped_early=False,
            best_step=1,
            weights_digest=DIGEST,
            state_root=DIGEST,
            final_blob=DIGEST,
            values={"val_loss": value},
        )
        return [evaluated, completed]


class _Over(Exception):
    """The oracle is no longer needed."""


@asynccontextmanager
async def swarm(
    home: Path,
    *,
    bus: MemoryBus | None = None,
    roles: tuple[str, ...] = ("hyperparameter_specialist", "resource_monitor", "ledger"),
    **oracle: Any,
) -> AsyncIterator[SwarmNode]:
    """The specialist, the ledger, the monitor, and an oracle for a trainer."""
    kind = type("Oracle", (Oracle,), {"role": "trainer", **oracle})
    async with harness.crew(home, roles, bus=bus) as made:
        await made.bus.consumer("trainer", wake_subjects(kind))  # type: ignore[attr-defined]
        try:
            async with asyncio.TaskGroup() as tasks:
                made.employ(tasks, {"trainer": kind})
                await made.ready()
                yield made
                raise _Over
        except* _Over:
            pass


async def requested(made: SwarmNode, raw: dict[str, Any], request_id: str | None = None) -> str:
    return await made.ground.submit(raw, "search", asked_by="me", request_id=request_id)


def trials_of(session: SessionState) -> list[dict[str, Any]]:
    return [one.parameters for one in SearchState.of(session).trials]


async def undisturbed(home: Path, raw: dict[str, Any]) -> SessionState:
    async with swarm(home) as made:
        return await harness.until_ended(made, await requested(made, raw))


async def test_every_trial_is_a_session_of_its_own_and_the_best_is_named(tmp_path: Path) -> None:
    async with swarm(tmp_path) as made:
        session = await requested(made, searched(trials=3, parallel=2))
        ended = await harness.until_ended(made, session)
        trials = [made.tail.history(one.session).state for one in SearchState.of(ended).trials]
    assert ended.state == "completed"
    assert [one.number for one in SearchState.of(ended).trials] == [0, 1, 2]
    for trial, started in zip(trials, SearchState.of(ended).trials, strict=True):
        assert trial.genesis is not None
        assert (trial.kind.name, trial.state, trial.genesis.parent) == ("trial", "completed", session)
        assert trial.request["optimizer"]["learning_rate"] == started.parameters[RATE]
    values = {one.number: one.value for one in SearchState.of(ended).finished}
    assert values == {one.number: pytest.approx(worth(one.parameters)) for one in SearchState.of(ended).trials}
    assert isinstance(ended.outcome, SearchCompleted)
    assert ended.outcome.best_number == min(SearchState.of(ended).trials, key=lambda one: worth(one.parameters)).number


@pytest.mark.parametrize("after", ["trial.started", "trial.finished"])
async def test_a_search_that_is_interrupted_goes_on_to_the_same_end(tmp_path: Path, after: str) -> None:
    raw, bus = searched(trials=4), MemoryBus()
    async with swarm(tmp_path / "one", bus=bus, gate=asyncio.Event() if after == "trial.started" else None) as made:
        session = await requested(made, raw)
        await harness.until_said(made, session, after)
    async with swarm(tmp_path / "one", bus=bus) as made:
        resumed = await harness.until_ended(made, session)
    whole = await undisturbed(tmp_path / "two", raw)
    assert trials_of(resumed) == trials_of(whole)
    assert len({one.session for one in SearchState.of(resumed).trials}) == len(SearchState.of(resumed).trials) == 4
    assert isinstance(resumed.outcome, SearchCompleted)
    assert isinstance(whole.outcome, SearchCompleted)
    assert resumed.outcome.best_value == whole.outcome.best_value


async def test_a_trial_counts_from_its_outcome_on_and_a_search_ends_once_its_trials_are_sealed(tmp_path: Path) -> None:
    async with swarm(tmp_path, roles=("hyperparameter_specialist", "resource_monitor")) as made:
        session = await requested(made, searched(trials=2))
        # Nobody seals, and the second trial is chosen and told of all the same.
        history = made.tail.history(session)
        async with asyncio.timeout(30.0):
            while len(SearchState.of(history.state).finished) < 2:
                await history.grown(history.size)
        async with harness.beside(made, ("ledger",), "other"):
            ended = await harness.until_ended(made, session)
        over = next(fact.seq for fact in history.facts if fact.name == "search.completed")
        trials = [made.tail.history(trial.session) for trial in SearchState.of(ended).trials]
        seals = [fact.seq for trial in trials for fact in trial.facts if fact.name == "session.sealed"]
    assert len(seals) == 2
    assert over > max(seals)


async def test_a_trial_that_was_requested_and_never_told_of_is_found_and_not_requested_again(tmp_path: Path) -> None:
    raw, bus = searched(trials=1), MemoryBus()
    from contracts.ids import session_for

    session = session_for("mine")
    wanted = Search.model_validate(raw)
    early = read_request(wanted.trial(0, {RATE: 0.05, "model.dropout": 0.25})).resolved()
    async with harness.crew(tmp_path, ("ledger",), bus=bus) as made:
        trial = await made.ground.submit(early, "trial", asked_by="x", request_id=f"{session}-trial-0")
    async with swarm(tmp_path, bus=bus) as made:
        assert await requested(made, raw, "mine") == session
        ended = await harness.until_ended(made, session)
    assert [(one.session, one.parameters) for one in SearchState.of(ended).trials] == [
        (trial, {RATE: 0.05, "model.dropout": 0.25})
    ]


async def test_a_trial_that_ended_long_ago_is_read_from_its_file(tmp_path: Path) -> None:
    async with swarm(tmp_path) as made:
        session = await requested(made, searched(trials=1))
        trial = SearchState.of(await harness.until_ended(made, session)).trials[0].session
        sealed = await harness.until_ended(made, trial)
        del made.tail.histories[trial]
        found = made.ground.history(trial)
    assert found.state == sealed


async def test_a_search_whose_trials_all_fail_has_failed_and_says_where_to_look(tmp_path: Path) -> None:
    async with swarm(tmp_path, broken=frozenset({0, 1})) as made:
        ended = await harness.until_ended(made, await requested(made, searched(trials=2)))
    assert ended.state == "failed"
    assert isinstance(ended.outcome, SearchFailed)
    assert "none of 2 trials has a value (failed)" in ended.outcome.message
    assert (ended.outcome.type, ended.outcome.states) == ("convergence", {"failed": 2})
    assert "swarm show" in ended.outcome.cure


async def test_one_failed_trial_does_not_end_a_search(tmp_path: Path) -> None:
    async with swarm(tmp_path, broken=frozenset({0})) as made:
        ended = await harness.until_ended(made, await requested(made, searched(trials=3)))
    assert [one.state for one in SearchState.of(ended).finished] == ["failed", "completed", "completed"]
    assert ended.state == "completed"


async def test_equal_trials_are_trained_once_and_known_by_what_that_came_to(tmp_path: Path) -> None:
    space = {"model.hidden": [[8], [8], [16], [8]], RATE: [0.01]}
    async with swarm(tmp_path) as made:
        ended = await harness.until_ended(made, await requested(made, searched(space=space, sampler="grid")))
        sessions = [log.state for log in made.tail.histories.values() if log.state.kind.name == "trial"]
    state = SearchState.of(ended)
    assert [one.state for one in state.finished] == ["completed", "repeated", "completed", "repeated"]
    assert [one.same_as for one in state.trials] == [None, 0, None, 0]
    assert (len(sessions), len({one.session for one in state.trials})) == (2, 2)
    progress = SearchProgress.of(ended, search(space=space, sampler="grid"))
    assert [one.value for one in progress.before(4)] == [state.finished[0].value] * 2 + [state.finished[2].value] + [
        state.finished[0].value
    ]


async def test_values_that_contradict_each_other_are_a_trial_with_nothing_to_show(tmp_path: Path) -> None:
    space = {
        "optimizer.type": {"type": "choice", "options": ["adamw", "sgd"]},
        "optimizer.betas": {"type": "choice", "options": [[0.9, 0.99]]},
    }
    async with swarm(tmp_path) as made:
        ended = await harness.until_ended(made, await requested(made, searched(space=space, sampler="grid")))
    assert [one.state for one in SearchState.of(ended).finished] == ["completed", "refused"]
    assert SearchState.of(ended).trials[1].session == ""


async def test_a_trial_that_its_search_died_before_telling_of_ends_with_the_search(tmp_path: Path) -> None:
    from contracts.ids import session_for

    raw, bus, session = searched(trials=1), MemoryBus(), session_for("mine")
    early = read_request(Search.model_validate(raw).trial(0, {RATE: 0.05, "model.dropout": 0.25})).resolved()
    async with harness.crew(tmp_path, ("ledger",), bus=bus) as made:
        assert await requested(made, raw, "mine") == session
        about = {"parent": session, "request_id": f"{session}-trial-0"}
        trial = await made.ground.submit(early, "trial", asked_by="x", **about)
        assert b"error" not in await made.commands.answer("swarm.cmd.cancel", orjson.dumps({"session": session}))
    async with swarm(tmp_path, bus=bus, gate=asyncio.Event()) as made:
        ended = await harness.until_ended(made, session)
        wished = await harness.until_said(made, trial, "cancel.requested")
    assert (ended.state, SearchState.of(ended).trials) == ("cancelled", ())
    assert wished.event.reason == "its search was cancelled"  # type: ignore[attr-defined]


async def test_a_cancelled_search_ends_and_so_do_its_trials(tmp_path: Path) -> None:
    async with swarm(tmp_path, gate=asyncio.Event()) as made:
        session = await requested(made, searched(trials=3))
        started = await harness.until_said(made, session, "trial.started")
        body = orjson.dumps({"session": session, "reason": "enough"})
        assert b"error" not in await made.commands.answer("swarm.cmd.cancel", body)
        ended = await harness.until_ended(made, session)
        assert isinstance(started.event, TrialStarted)
        wished = await harness.until_said(made, started.event.session, "cancel.requested")
    assert ended.outcome == SearchCancelled(reason="enough", trials=0)
    assert ended.state == "cancelled"
    assert problem(ended) == {"code": "cancelled", "message": "enough", "cure": ""}
    assert wished.event.reason == "its search was cancelled"  # type: ignore[attr-defined]


async def test_a_search_whose_time_is_over_begins_no_further_trial_and_waits_for_those_that_run(tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with swarm(tmp_path, gate=gate) as made:
        session = await requested(made, searched(trials=5, seconds=0.2))
        await harness.until_said(made, session, "search.limited")
        gate.set()
        ended = await harness.until_ended(made, session)
    assert (ended.state, len(SearchState.of(ended).trials)) == ("completed", 1)


# The range test


def curve_of(losses: list[float]) -> curve.Curve:
    return curve.read(curve.rates(1e-5, 10.0, len(losses)), losses)


def test_the_steepest_descent_is_suggested_and_what_comes_after_it_does_not_matter() -> None:
    steps = 100
    rates = curve.rates(1e-5, 10.0, steps)
    losses = [0.5 + 2 / (1 + (rate / 0.01) ** 2) for rate in rates]
    found = curve.read(rates, losses)
    assert found.suggestion == found.steepest
    assert found.suggestion is not None
    assert 0.005 < found.suggestion < 0.1
    assert found.diverged_at is None


def test_a_suggestion_keeps_away_from_where_training_broke() -> None:
    rates = curve.rates(1e-5, 10.0, 100)
    broke = 60
    losses = [2.0 - 1.5 * place / broke * (place > 50) for place in range(broke)] + [math.nan] * 40
    found = curve.read(rates, losses)
    assert found.diverged_at == rates[broke]
    assert found.suggestion is not None
    assert found.suggestion <= rates[broke] / curve.GUARD


def test_a_loss_that_only_rises_or_was_never_a_number_suggests_nothing() -> None:
    assert curve_of([1.0 + n / 10 for n in range(100)]).suggestion is None
    assert curve_of([math.nan] * 100) == curve.Curve(None, None, pytest.approx(1e-5))
    assert curve_of([1.0] * 100).suggestion is None


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(allow_nan=True, allow_infinity=True, width=32), min_size=20, max_size=120))
def test_any_curve_can_be_read(losses: list[float]) -> None:
    found = curve_of(losses)
    assert found.suggestion is None or 1e-5 <= found.suggestion <= 10.0


async def test_a_range_test_has_the_data_prepared_sweeps_them_and_suggests_a_rate_that_trains(tmp_path: Path) -> None:
    raw = read_search({"method": "lr_range", "base": harness.small_request()}).resolved()
    async with harness.crew(tmp_path) as made:
        first = await harness.until_ended(made, await requested(made, raw))
        said = await harness.until_said(made, first.id, "learning_rate.suggested")
        again = await harness.until_ended(made, await requested(made, raw))
        repeated = await harness.until_said(made, again.id, "learning_rate.suggested")
    assert (len(SearchState.of(first).trials), len(SearchState.of(again).trials)) == (1, 0)
    assert said.event == repeated.event
    assert isinstance(first.outcome, SearchCompleted)
    assert 1e-3 < first.outcome.best_parameters[RATE] < 0.3


async def test_a_range_test_without_data_says_why(tmp_path: Path) -> None:
    base = harness.small_request(data={"source": "csv", "path": str(tmp_path / "none.csv"), "target": "y"})
    raw = read_search({"method": "lr_range", "base": base | {"loss": {"type": "auto"}}}).resolved()
    async with harness.crew(tmp_path / "home") as made:
        ended = await harness.until_ended(made, await requested(made, raw))
    assert isinstance(ended.outcome, SearchFailed)
    assert "the data could not be prepared" in ended.outcome.message
    assert ended.outcome.cure


def test_a_search_that_is_no_search_never_reaches_the_specialist() -> None:
    with pytest.raises(InvalidRequest):
        read_search({"base": {}, "space": {}})
