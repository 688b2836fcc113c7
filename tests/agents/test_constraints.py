"""What a search promises about constraints: measured, recorded, told to the sampler, never broken by the best trial."""

from __future__ import annotations

import asyncio
import math
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agents.hyperparameter_specialist.jobs.ask import ask
from agents.hyperparameter_specialist.progress import Past, SearchProgress
from bus.memory import MemoryBus
from contracts.errors import InvalidRequest
from contracts.exporter import ModelBenchmarked
from contracts.hyperparameter_specialist import (
    ConstraintMeasure,
    SearchCompleted,
    SearchFailed,
    SearchState,
    TrialFinished,
    TrialMeasured,
    TrialStarted,
)
from contracts.request.search import Search, read_search
from runtime.views.sentences import sentence
from tests import harness
from tests.agents.test_hyperparameter_specialist import (
    RATE,
    requested,
    search,
    searched,
    swarm,
    told,
    trials_of,
    undisturbed,
    worth,
)

DROPOUT = "model.dropout"


def measured(number: int, *excesses: float, missing: str = "") -> TrialMeasured:
    """A trial that is so far beyond limits of 100 megabytes and of an accuracy of 0.5; without a value where that is
    not finite."""
    known = [excess if math.isfinite(excess) else None for excess in excesses]
    values = [
        None if known[0] is None else 100 * (1 + known[0]),
        *(None if e is None else (1 - e) / 2 for e in known[1:]),
    ]
    about = (("max_size_mb", 100.0), ("min_accuracy", 0.5))
    measures = [
        {"constraint": name, "limit": limit, "value": value, "n": 0 if value is None else 1, "missing": missing}
        for (name, limit), value in zip(about, values, strict=False)
    ]
    return TrialMeasured.model_validate({"number": number, "session": f"s{number}", "measures": measures})


def progress_of(values: list[float | None], *of_trials: TrialMeasured, **changes: Any) -> SearchProgress:
    parameters = {RATE: 0.01, DROPOUT: 0.1}
    started = {n: TrialStarted(number=n, session=f"s{n}", parameters=parameters) for n in range(len(values))}
    finished = {
        n: TrialFinished(number=n, session=f"s{n}", state="failed" if value is None else "completed", value=value)
        for n, value in enumerate(values)
    }
    limits = {"max_size_mb": 100, "min_accuracy": 0.5}
    wanted = search(trials=len(values), constraints=limits, **changes)
    return SearchProgress(wanted, started, finished, measured={one.number: one for one in of_trials})


def test_a_measure_says_by_how_much_a_constraint_is_kept_or_broken() -> None:
    kept, broken = measured(3, -0.5, -0.2), measured(4, 0.4, 0.2)
    assert kept.excesses == pytest.approx((-0.5, -0.2))
    assert kept.feasible
    assert measured(3, 0.0, 0.0).feasible, "a limit may be reached"
    assert not broken.feasible
    assert broken.excesses == pytest.approx((0.4, 0.2))
    assert sentence(kept) == (
        "trial 3 keeps to its constraints: max_size_mb 100 is kept with 50; min_accuracy 0.5 is kept with 0.6"
    )
    assert sentence(broken) == (
        "trial 4 is infeasible: max_size_mb 100 is broken with 140, 40 % too much;"
        " min_accuracy 0.5 is broken with 0.4, 20 % too little"
    )
    assert "is infeasible: max_size_mb could not be measured: no file" in sentence(
        measured(4, math.inf, missing="no file")
    )


def test_a_trial_that_breaks_a_constraint_is_never_the_best_however_good_it_is() -> None:
    progress = progress_of(
        [0.1, 0.3, 0.2, None], measured(0, 0.01, -1.0), measured(1, -0.1, -0.1), measured(2, math.inf)
    )
    conclusion = progress.conclusion()
    assert isinstance(conclusion, SearchCompleted)
    assert (conclusion.best_number, conclusion.best_value) == (1, 0.3)
    states = [(one.state, [round(excess, 6) for excess in one.excesses]) for one in progress.before(4)]
    assert states == [("complete", [0.01, -1.0]), ("complete", [-0.1, -0.1]), ("failed", []), ("failed", [])]


def test_of_several_objectives_the_front_and_the_best_by_weight_are_feasible_and_a_sampler_is_told_both() -> None:
    for weight in (None, 1.0):
        objectives = [{"metric": name, "weight": weight} for name in ("val_loss", "parameters")]
        progress = progress_of(
            [1, 2, 3], measured(0, 0.1, 0.0), measured(1, -0.1, 0.0), measured(2, -0.1, -0.1), objectives=objectives
        )
        finished = {
            number: trial.model_copy(
                update={"values": {"val_loss": float(number + 1), "parameters": 9.0 - number // 2}}
            )
            for number, trial in progress.finished.items()
        }
        conclusion = replace(progress, finished=finished).conclusion()
        assert isinstance(conclusion, SearchCompleted)
        assert [one.number for one in conclusion.front] == [1, 2]
        assert conclusion.best_number in ((None,) if weight is None else (1, 2))
        past = replace(progress, finished=finished).before(3)
        assert [one.state for one in past] == ["complete"] * 3
        assert [len(one.values) for one in past] == ([2] * 3 if weight is None else [0] * 3)
        assert [one.excesses[0] > 0 for one in past] == [True, False, False]
        assert ask(progress.search, "tpe", 3, past)


def test_a_search_without_a_feasible_trial_names_the_nearest_and_what_to_change() -> None:
    progress = progress_of([0.1, 0.2, 0.3], measured(0, 0.5, -0.9), measured(1, 0.2, 0.2), measured(2, math.inf, 0.1))
    failed = progress.conclusion()
    assert isinstance(failed, SearchFailed)
    assert failed.message == (
        "none of 3 trials keeps to the constraints. Nearest is trial 1 (session s1): max_size_mb 100 is broken with"
        " 120, 20 % too much; min_accuracy 0.5 is broken with 0.4, 20 % too little."
    )
    assert failed.cure == (
        "Allow about max_size_mb 120, min_accuracy 0.4 under `constraints`, or have smaller models in the space."
    )
    assert (failed.type, failed.states) == ("resource", {"completed": 3})
    inaccurate = progress_of([0.1], measured(0, -0.5, 0.2)).conclusion()
    assert isinstance(inaccurate, SearchFailed)
    assert inaccurate.type == "convergence"
    assert "have more accurate models in the space" in inaccurate.cure
    unknown = progress_of([0.1], measured(0, math.inf, -0.1, missing="it was not exported")).conclusion()
    assert isinstance(unknown, SearchFailed)
    assert "max_size_mb could not be measured: it was not exported." in unknown.message
    assert unknown.cure == "See why: swarm show s0"


def simulated(wanted: Search, chance: random.Random) -> list[dict[str, Any]]:
    """All trials of a search that end in any order. Those with little dropout are the better ones, and infeasible."""
    started: dict[int, TrialStarted] = {}
    finished: dict[int, TrialFinished] = {}
    known: dict[int, TrialMeasured] = {}
    while True:
        progress = SearchProgress(wanted, started, finished, measured=known)
        if progress.complete:
            return [started[number].parameters for number in sorted(started)]
        number, running = progress.next_number(), sorted(progress.running)
        if number is not None and (not running or chance.random() < 0.5):
            parameters = ask(wanted, wanted.sampler, number, progress.before(number))
            started[number] = TrialStarted(number=number, session=str(number), parameters=parameters)
        elif running:
            ended = chance.choice(running)
            finished[ended] = told(ended, started[ended].parameters)
            if wanted.constraints:
                known[ended] = measured(ended, (0.25 - started[ended].parameters[DROPOUT]) / 0.25)


def test_trials_are_chosen_more_often_among_what_keeps_to_the_constraints() -> None:
    free, bound = (
        simulated(search(trials=40, **more), random.Random(0)) for more in ({}, {"constraints": {"max_size_mb": 100}})
    )
    kept = [sum(one[DROPOUT] >= 0.25 for one in each[20:]) for each in (free, bound)]
    assert kept[0] < 10 < kept[1], kept


@pytest.mark.parametrize("sampler", ["tpe", pytest.param("gp", marks=pytest.mark.long)])
def test_a_sampler_is_told_by_how_much_each_trial_keeps_to_the_constraints(sampler: str) -> None:
    wanted, chance = search(trials=13), random.Random(5)
    known = [{RATE: 10 ** chance.uniform(-4, -1), DROPOUT: chance.uniform(0, 0.5)} for _ in range(12)]
    free = [Past(one, "complete", worth(one)) for one in known]
    bound = [replace(one, excesses=((0.25 - one.parameters[DROPOUT]) / 0.25,)) for one in free]  # type: ignore[operator]
    assert [ask(wanted, sampler, 12, past)[DROPOUT] >= 0.25 for past in (free, bound)] == [False, True]  # type: ignore[operator]


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_constrained_trials_are_the_same_whatever_ends_first(sampler: str) -> None:
    wanted = search(parallel=3, sampler=sampler, trials=14, constraints={"max_size_mb": 100})
    assert simulated(wanted, random.Random(1)) == simulated(wanted, random.Random(0))


def test_a_request_says_what_is_bounded_and_trials_are_exported_only_for_that() -> None:
    assert "constraints" not in searched()
    assert searched(constraints={"max_size_mb": 2})["constraints"] == {"max_size_mb": 2.0}
    assert "export" not in search(constraints={"min_accuracy": 0.5, "max_memory_mb": 900}).trial(0, {})
    for name in ("max_size_mb", "max_latency_ms"):
        assert search(constraints={name: 1}).trial(0, {})["export"] == {"formats": ["onnx"]}


@pytest.mark.parametrize(
    ("changes", "path", "words"),
    [
        ({"constraints": {}}, "constraints", "nothing is bounded"),
        ({"constraints": {"max_size": 2}}, "constraints.max_size", "unknown key"),
        ({"constraints": {"max_size_mb": 0}}, "constraints.max_size_mb", "0"),
        ({"constraints": {"min_accuracy": 1.5}}, "constraints.min_accuracy", "1"),
        ({"constraints": {"max_size_mb": 1}, "halving": {"first_epochs": 1}}, "constraints", "halving"),
        (
            {
                "base": harness.small_request(validation={"metrics": ["f1_macro"]}),
                "constraints": {"min_accuracy": 0.5},
            },
            "constraints.min_accuracy",
            "validation.metrics",
        ),
        (
            {
                "base": harness.small_request(data={"source": "diabetes"}, loss={"type": "mse"}),
                "constraints": {"min_accuracy": 0.5},
            },
            "constraints.min_accuracy",
            "accuracy",
        ),
    ],
)
def test_constraints_that_cannot_be_measured_are_refused(changes: dict[str, Any], path: str, words: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        read_search(searched() | changes)
    (problem,) = raised.value.problems
    assert problem.path == path
    assert words in problem.message + problem.cure
    assert problem.type == "resource"


async def test_with_several_seeds_a_trial_keeps_to_a_constraint_in_the_mean_and_lacks_what_one_of_them_lacks(
    tmp_path: Path,
) -> None:
    raw = searched(trials=1, seeds=3, constraints={"min_accuracy": 0.1, "max_size_mb": 1})
    ended = await undisturbed(tmp_path, raw)
    (told,) = SearchState.of(ended).measured
    assert told.session == SearchState.of(ended).trials[0].session
    assert {one.constraint: (one.value, one.n) for one in told.measures} == {
        "min_accuracy": (pytest.approx(0.2), 3),
        "max_size_mb": (None, 0),
    }


async def test_what_could_not_be_measured_is_infeasible_and_says_why(tmp_path: Path) -> None:
    limits = {"max_memory_mb": 1e6, "max_latency_ms": 1e6, "min_accuracy": 0.1, "max_size_mb": 1e6}
    ended = await undisturbed(tmp_path, searched(trials=1, constraints=limits))
    assert isinstance(ended.outcome, SearchFailed)
    (first,) = SearchState.of(ended).measured
    assert {one.constraint: (one.value, one.n, one.missing) for one in first.measures} == {
        "max_memory_mb": (None, 0, "it was never claimed"),
        "max_latency_ms": (None, 0, "it was not exported"),
        "min_accuracy": (0.2, 1, ""),
        "max_size_mb": (None, 0, "it was not exported"),
    }


async def test_a_constrained_search_that_is_interrupted_goes_on_to_the_same_end(tmp_path: Path) -> None:
    raw, bus = searched(trials=7, constraints={"min_accuracy": 0.6}), MemoryBus()
    async with swarm(tmp_path / "one", bus=bus) as made:
        session = await requested(made, raw)
        await harness.until_said(made, session, "trial.measured")
    async with swarm(tmp_path / "one", bus=bus) as made:
        resumed = await harness.until_ended(made, session)
    whole = await undisturbed(tmp_path / "two", raw)
    assert trials_of(resumed) == trials_of(whole)
    first, second = ([(one.number, one.measures) for one in SearchState.of(each).measured] for each in (resumed, whole))
    assert first == second
    assert [number for number, _ in first] == list(range(7)), "each is told once"
    assert isinstance(resumed.outcome, SearchCompleted)
    assert isinstance(whole.outcome, SearchCompleted)
    assert resumed.outcome.best_value == whole.outcome.best_value
    values = {one.number: one.value for one in SearchState.of(whole).finished if one.value is not None}
    assert whole.outcome.best_value == min(values[one.number] for one in SearchState.of(whole).measured if one.feasible)
    assert {one.feasible for one in SearchState.of(whole).measured} == {True, False}


@pytest.mark.long
async def test_trials_are_measured_on_their_export_and_a_probe_once_and_the_best_keeps_to_all(tmp_path: Path) -> None:
    wanted = {
        "base": harness.small_request(training={"epochs": 2, "batch_size": 64}),
        "space": {"model.hidden": [[8], [256]], RATE: [0.01]},
        "trials": 2,
        "sampler": "grid",
        "constraints": {"max_memory_mb": 1e5, "max_latency_ms": 1e5, "min_accuracy": 0.01, "max_size_mb": 0.03},
    }
    raw, bus = read_search(wanted).resolved(), MemoryBus()
    async with harness.crew(tmp_path, bus=bus) as made:
        session = await requested(made, raw)
        begun = (await harness.until_said(made, session, "trial.started")).event
        assert isinstance(begun, TrialStarted)
        await harness.until_ended(made, begun.session)
        first = (await harness.until_said(made, session, "trial.measured")).event
    async with harness.crew(tmp_path, bus=bus) as made:
        async with asyncio.timeout(60):
            while len(trials := SearchState.of(made.tail.history(session).state).trials) < 2:
                await made.tail.history(session).grown(made.tail.history(session).size)
        await harness.until_ended(made, trials[1].session)
        ended = await harness.until_ended(made, session)
        state, history = SearchState.of(ended), made.tail.history(session)
        logs = [made.tail.history(one.session) for one in state.trials]
    assert isinstance(ended.outcome, SearchCompleted)
    assert ended.outcome.best_parameters == {"model.hidden": [8], RATE: 0.01}
    assert state.finished[0].value is not None
    assert state.finished[1].value is not None
    assert state.finished[1].value < state.finished[0].value, "the larger one is better, and infeasible"
    assert state.measured[0] == first
    assert [one.feasible for one in state.measured] == [True, False]
    told = [fact.name for fact in history.facts if fact.name in ("trial.measured", "trial.finished")]
    assert told == ["trial.measured", "trial.finished"] * 2
    for each, trial in zip(state.measured, logs, strict=True):
        values: dict[str, ConstraintMeasure] = {one.constraint: one for one in each.measures}
        ((_, file),) = trial.state.training.exports
        timings = [fact.event for fact in trial.facts if isinstance(fact.event, ModelBenchmarked)]
        (timing,) = [one for one in timings if one.batch == 1]
        best = trial.state.training.best
        assert best is not None
        assert values["max_size_mb"].value == file.bytes / 1e6
        assert (values["max_latency_ms"].value, values["max_latency_ms"].n) == (timing.median_ms, timing.runs)
        assert values["min_accuracy"].value == best.values["val_accuracy"]
        assert 20 < (values["max_memory_mb"].value or 0) < 1e5
    assert [one.constraint for one in state.measured[1].measures if one.excess > 0] == ["max_size_mb"]
    again = SearchProgress.of(ended, Search.model_validate(raw)).conclusion()
    assert again == ended.outcome, "the log alone says which is best"
