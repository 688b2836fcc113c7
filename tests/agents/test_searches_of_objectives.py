"""What a search with several objectives promises: the same trials, decisions and front, whoever ends first or dies."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from agents.hyperparameter_specialist.jobs.ask import ask
from agents.hyperparameter_specialist.progress import SearchProgress, sampler_of
from bus.memory import MemoryBus
from contracts.hyperparameter_specialist import (
    SEARCH,
    RungDecided,
    SearchCompleted,
    SearchFailed,
    SearchState,
    TrialFinished,
    TrialPaused,
    TrialStarted,
)
from contracts.request.search import Search
from contracts.session import SessionState
from contracts.trainer import AttemptEnded, CheckpointWritten, training_seconds
from tests import harness
from tests.agents.test_hyperparameter_specialist import RATE, requested, search, searched, worth

LOSS, SIZE = {"metric": "val_loss"}, {"metric": "parameters"}
WEIGHTED = [{**LOSS, "weight": 3}, {**SIZE, "weight": 1}]


def values(parameters: dict[str, Any]) -> dict[str, float]:
    """A loss and a size that want opposite values of the dropout."""
    dropout = float(parameters["model.dropout"])
    return {"val_loss": worth(parameters), "parameters": 1000 * (1 - dropout)}


def trials_of(wanted: Search, chance: random.Random) -> tuple[list[dict[str, Any]], SearchCompleted | SearchFailed]:
    """The trials of a search that end in any order, and how it ends."""
    started: dict[int, TrialStarted] = {}
    finished: dict[int, TrialFinished] = {}
    while True:
        progress = SearchProgress(wanted, started, finished)
        if progress.complete:
            return [started[number].parameters for number in sorted(started)], progress.conclusion()
        number, running = progress.next_number(), sorted(progress.running)
        if number is not None and (not running or chance.random() < 0.5):
            chosen: Any = ask(wanted, sampler_of(wanted), number, progress.before(number))
            started[number] = TrialStarted(number=number, session=str(number), parameters=chosen)
        elif running:
            ended = chance.choice(running)
            told = values(started[ended].parameters)
            # One trial in five comes to nothing.
            told = {} if ended % 5 == 4 else told
            finished[ended] = TrialFinished(
                number=ended, session=str(ended), state="completed", value=told.get("val_loss"), epochs=1, values=told
            )


@pytest.mark.parametrize("objectives", [[LOSS, SIZE], [{**LOSS, "weight": 1}, {**SIZE, "weight": 9}]])
@pytest.mark.parametrize("parallel", [1, 3])
def test_the_same_seed_makes_the_same_trials_and_the_same_front_whatever_ends_first(
    objectives: list[dict[str, Any]], parallel: int
) -> None:
    wanted = search(objectives=objectives, trials=12, parallel=parallel)
    first = trials_of(wanted, random.Random(0))
    assert all(trials_of(wanted, random.Random(seed)) == first for seed in range(1, 5))
    trials, conclusion = first
    assert isinstance(conclusion, SearchCompleted)
    assert [one.number for one in conclusion.front] == sorted(one.number for one in conclusion.front)
    assert not {4, 9} & {one.number for one in conclusion.front}
    assert all(one.values == values(trials[one.number]) for one in conclusion.front)
    if parallel == 1:
        plain = trials_of(search(trials=12), random.Random(0))[0]
        assert plain[:5] == trials[:5]
        assert plain != trials


def told(number: int, **values: float) -> TrialFinished:
    value = values.get("val_loss")
    return TrialFinished(number=number, session=str(number), state="completed", value=value, values=values)


def ended(wanted: Search, *trials: TrialFinished) -> SearchProgress:
    parameters: Any = {RATE: 0.01, "model.dropout": 0.1}
    started = {one.number: TrialStarted(number=one.number, session="", parameters=parameters) for one in trials}
    return SearchProgress(wanted, started, {one.number: one for one in trials})


TRIALS = (
    told(0, val_loss=1.0, parameters=50.0),
    told(1, val_loss=2.0, parameters=20.0),
    told(2, val_loss=3.0, parameters=30.0),
    told(3, val_loss=0.9),
)


def test_with_weights_the_best_of_the_front_is_named_and_without_none_is() -> None:
    conclusion = ended(search(objectives=[LOSS, SIZE], trials=4), *TRIALS).conclusion()
    assert isinstance(conclusion, SearchCompleted)
    assert (conclusion.best_number, conclusion.best_session, conclusion.best_value) == (None, None, None)
    assert [(one.number, one.values, one.score) for one in conclusion.front] == [
        (0, TRIALS[0].values, None),
        (1, TRIALS[1].values, None),
    ]
    for weights, best in (((5, 1), 0), ((1, 5), 1)):
        objectives = [{**LOSS, "weight": weights[0]}, {**SIZE, "weight": weights[1]}]
        conclusion = ended(search(objectives=objectives, trials=4), *TRIALS).conclusion()
        assert isinstance(conclusion, SearchCompleted)
        assert (conclusion.best_number, conclusion.best_value) == (best, TRIALS[best].value)
        assert [one.number for one in conclusion.front] == [0, 1]
        scores = {one.number: one.score or 0.0 for one in conclusion.front}
        assert min(scores, key=lambda number: scores[number]) == best
    assert isinstance(ended(search(objectives=[LOSS, SIZE], trials=4), TRIALS[3]).conclusion(), SearchFailed)


def test_a_sampler_sees_every_objective_or_the_one_number_that_is_made_of_those_that_have_ended() -> None:
    front = ended(search(objectives=[LOSS, SIZE], trials=9), *TRIALS).before(4)
    assert [(one.state, one.value, one.values) for one in front] == [
        ("complete", None, (1.0, 50.0)),
        ("complete", None, (2.0, 20.0)),
        ("complete", None, (3.0, 30.0)),
        ("failed", None, ()),
    ]
    weighed = ended(search(objectives=WEIGHTED, trials=9), *TRIALS).before(4)
    assert [(one.state, one.value) for one in weighed] == [
        ("complete", pytest.approx(0.75)),
        ("complete", pytest.approx(0.75)),
        ("complete", pytest.approx(1.75)),
        ("failed", None),
    ]
    assert [one.state for one in ended(search(objectives=WEIGHTED, trials=9, parallel=2), *TRIALS).before(4)] == [
        "complete",
        "complete",
        "complete",
        "running",
    ]
    for sampler in ("tpe", "random"):
        assert ask(search(objectives=[LOSS, SIZE]), sampler, 4, front)


def test_many_objectives_without_weights_are_left_to_the_sampler_that_stays_quick() -> None:
    assert sampler_of(search(sampler="auto", objectives=[LOSS, SIZE])) == "gp"
    several = [LOSS, SIZE, {"metric": "bytes"}]
    assert sampler_of(search(sampler="auto", objectives=several)) == "tpe"
    assert sampler_of(search(sampler="auto", objectives=[{**one, "weight": 1} for one in several])) == "gp"


def rung(wanted: Search, *pauses: TrialPaused) -> RungDecided:
    state: Any = SearchState()
    fact: Any = None
    for pause in pauses:
        begun = TrialStarted(number=pause.number, session=str(pause.number), parameters={})
        for said in (begun, pause):
            state = SEARCH.folds[type(said)](state, said, fact)
    decision = SearchProgress.of(SessionState("s", own=state), wanted).rung_decision()
    assert decision is not None
    return decision


def waiting(number: int, loss: float, earlier: float, size: float) -> TrialPaused:
    measured = {"val_loss": loss, "parameters": size}
    return TrialPaused(number=number, rung=0, epochs=2, values=measured, earlier_values={"val_loss": earlier})


def test_a_rung_keeps_front_after_front_or_the_best_by_weight_and_counts_how_a_loss_changed() -> None:
    base = harness.small_request(training={"epochs": 8, "batch_size": 64})
    about: dict[str, Any] = {"base": base, "trials": 4, "halving": {"first_epochs": 2}}
    pauses = (
        waiting(0, 0.5, 0.5, 90.0),
        waiting(1, 0.9, 0.9, 95.0),  # dominated by 0
        waiting(2, 0.6, 0.9, 99.0),  # falls, so that it is as good as 0.3
        waiting(3, 0.8, 0.8, 10.0),
    )
    front = rung(search(objectives=[LOSS, SIZE], **about), *pauses)
    assert (front.kept, front.stopped) == ([2, 0], [3, 1])
    weighted = rung(search(objectives=[{**LOSS, "weight": 1}, {**SIZE, "weight": 1000}], **about), *pauses)
    assert (weighted.kept, weighted.stopped) == ([3, 0], [1, 2])


async def test_a_search_of_several_objectives_that_dies_at_a_rung_comes_to_the_front_that_its_logs_tell(
    tmp_path: Path,
) -> None:
    base = harness.small_request(training={"epochs": 2, "batch_size": 64}, model={"architecture": "mlp"})
    named = ("val_loss", "val_accuracy", "parameters", "epochs", "bytes", "seconds")
    raw = searched(
        base=base,
        space={"model.hidden": [[4], [64]]},
        sampler="grid",
        trials=2,
        parallel=2,
        objectives=[{"metric": name} for name in named],
        halving={"first_epochs": 1, "factor": 2},
    )
    bus = MemoryBus()
    async with harness.crew(tmp_path, bus=bus) as made:
        session = await requested(made, raw)
        await harness.until_said(made, session, "rung.decided")
    async with harness.crew(tmp_path, bus=bus) as made:
        state = await harness.until_ended(made, session)
        search_state = SearchState.of(state)
        logs = {one.number: made.tail.history(one.session) for one in search_state.trials}
    assert isinstance(state.outcome, SearchCompleted)
    (kept,) = search_state.rungs[0].kept
    (found,) = state.outcome.front
    assert (found.number, state.outcome.best_number) == (kept, None)
    training = logs[kept].state.training
    facts = [fact.event for fact in logs[kept].facts]
    assert training.best is not None
    assert training.claim is not None
    assert found.values == {
        "val_loss": training.best.values["val_loss"],
        "val_accuracy": training.best.values["val_accuracy"],
        "parameters": training.claim.resolved["parameters"],
        "epochs": 2.0,
        "bytes": [fact.bytes for fact in facts if isinstance(fact, CheckpointWritten)][-1],
        "seconds": sum(training_seconds(fact.seconds) for fact in facts if isinstance(fact, AttemptEnded)),
    }
    assert found.values["seconds"] > 0
    assert all(one.values.keys() == set(named) for one in search_state.paused)
    assert all(one.earlier_values == {} for one in search_state.paused)
