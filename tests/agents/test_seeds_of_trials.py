"""What several seeds per trial promise: a value is their mean, and a restart changes nothing."""

from __future__ import annotations

import math
import statistics
from pathlib import Path
from typing import Any

import pytest

from agents.hyperparameter_specialist.outcomes import finished_with_seeds, paused_with_seeds
from agents.hyperparameter_specialist.progress import SearchProgress
from bus.memory import MemoryBus
from contracts.hyperparameter_specialist import SearchCompleted, SearchState, TrialFinished, TrialPaused, TrialStarted
from contracts.ids import session_for
from contracts.request import read_request
from contracts.request.search import Search
from contracts.session import SessionState
from contracts.trainer import ControlEvaluated, TrainingCompleted, TrainingFailed, TrainingPaused, WindowsReproduced
from contracts.training import TRIAL, TrainingState
from runtime.host.swarm_node import SwarmNode
from runtime.log.session_log import SessionLog
from tests import harness
from tests.agents.test_hyperparameter_specialist import DIGEST, RATE, requested, search, searched

SEEDS = {"seeds": [5, 6, 7]}
BASE = harness.small_request(training={"epochs": 4, "batch_size": 64}, early_stopping={"enabled": False})


def evaluated(epoch: int, value: float) -> ControlEvaluated:
    return ControlEvaluated(
        segment=1,
        step=epoch,
        epoch=epoch,
        values={"val_loss": value},
        metric="val_loss",
        improved=True,
        best=value,
        best_step=epoch,
        patience_left=1,
        stop=False,
    )


def log_of(number: int, state: str, *losses: float, paused_at: int | None = None) -> SessionLog:
    """The log of one seed's session: in a state, with these losses after its epochs."""
    training = TrainingState()
    for epoch, loss in enumerate(losses, 1):
        training = TRIAL.folds[ControlEvaluated](training, evaluated(epoch, loss), None)  # type: ignore[assignment, arg-type]
    log = SessionLog(f"00-{number}")
    resolved = {"batch": 1, "accumulate": 1, "rows": 1, "parameters": 10}
    changes: dict[str, Any] = {"claim": harness.claim(1, resolved)}
    if paused_at is not None:
        changes["pause"] = TrainingPaused(by="plan", segment=1, step=paused_at)
    for name, value in changes.items():
        object.__setattr__(training, name, value)
    outcome = {
        "completed": TrainingCompleted(
            segment=1,
            step=1,
            epochs=len(losses),
            stopped_early=False,
            best_step=None,
            weights_digest=DIGEST,
            state_root=DIGEST,
            final_blob=DIGEST,
            values={},
        ),
        "failed": TrainingFailed(segment=1, step=1, code="x", message="broken"),
    }.get(state)
    log.states.last = SessionState(log.id, kind=TRIAL, own=training, outcome=outcome)
    return log


def progress_of(**changes: Any) -> SearchProgress:
    started = {0: TrialStarted(number=0, session="00-0", parameters={}, sessions=["00-0", "00-1", "00-2"])}
    return SearchProgress(search(**(SEEDS | changes)), started, {})


def test_a_value_is_the_mean_of_all_seeds_with_its_spread_and_none_where_a_seed_has_none() -> None:
    whole = [log_of(place, "completed", 1.0, value) for place, value in enumerate((0.25, 0.5, 0.75))]
    told = finished_with_seeds(progress_of(), 0, whole)
    assert (told.session, told.state, told.value, told.epochs, told.values) == ("00-0", "completed", 0.5, 6, {})
    assert told.spread == {"val_loss": pytest.approx(statistics.stdev((0.25, 0.5, 0.75)))}
    assert [(one.seed, one.session, one.values) for one in told.seeds] == [
        (5, "00-0", {"val_loss": 0.25}),
        (6, "00-1", {"val_loss": 0.5}),
        (7, "00-2", {"val_loss": 0.75}),
    ]
    for state, loss in (("failed", 0.5), ("completed", math.nan)):
        broken = finished_with_seeds(progress_of(), 0, [*whole[:2], log_of(2, state, loss)])
        assert (broken.state, broken.value, broken.spread) == (state, None, {})
        assert len(broken.seeds) == 3
    huge = finished_with_seeds(
        progress_of(), 0, [log_of(place, "completed", 1.7e308 * (place - 1)) for place in range(3)]
    )
    assert huge.value == 0.0
    assert huge.spread["val_loss"] == pytest.approx(1.7e308)
    objectives = [{"metric": "val_loss"}, {"metric": "parameters"}]
    several = finished_with_seeds(progress_of(objectives=objectives), 0, whole)
    assert (several.value, several.values) == (0.5, {"val_loss": 0.5, "parameters": 10.0})
    assert several.spread["parameters"] == 0.0


def test_a_trial_waits_at_a_rung_once_all_its_seeds_do_by_their_mean_and_with_those_that_have_ended() -> None:
    progress = progress_of(base=BASE, halving={"first_epochs": 2})
    waits = [log_of(place, "paused", 1.0, 0.4 + place / 10, paused_at=2) for place in range(3)]
    told = paused_with_seeds(progress, 0, waits)
    assert told is not None
    assert (told.epochs, told.earlier) == (2, 1.0)
    assert told.value == pytest.approx(0.5)
    assert paused_with_seeds(progress, 0, [*waits[:2], log_of(2, "training", 1.0)]) is None
    early = paused_with_seeds(progress, 0, [*waits[:2], log_of(2, "completed", 0.9, 0.6)])
    assert early is not None
    assert early.value == pytest.approx(0.5)
    assert early.earlier == pytest.approx((1.0 + 1.0 + 0.6) / 3)
    broken = paused_with_seeds(progress, 0, [*waits[:2], log_of(2, "failed")])
    assert broken is not None
    assert broken.value is None
    assert paused_with_seeds(progress, 0, [log_of(place, "completed", 0.9) for place in range(3)]) is None


def test_a_budget_of_epochs_counts_those_of_all_seeds() -> None:
    wanted = search(trials=9, epochs=12, **SEEDS)
    for epochs, further in ((11, 1), (12, None)):
        started = {0: TrialStarted(number=0, session="0", parameters={})}
        done = {0: TrialFinished(number=0, session="0", state="completed", value=1.0, epochs=epochs)}
        assert SearchProgress(wanted, started, done).next_number() == further
    halved = search(base=BASE, trials=9, epochs=6, halving={"first_epochs": 2}, **SEEDS)
    waiting = {0: [TrialPaused(number=0, rung=0, epochs=2, value=1.0)]}
    assert SearchProgress(halved, started, {}, paused=waiting).next_number() is None
    more = halved.model_copy(update={"epochs": 7})
    assert SearchProgress(more, started, {}, paused=waiting).next_number() == 1


def trainings(made: SwarmNode) -> dict[str, SessionLog]:
    return {log.id: log for log in made.tail.histories.values() if log.state.kind.name == "trial"}


def told_of(state: SessionState) -> list[Any]:
    """What does not depend on the session's id."""
    found = SearchState.of(state)
    decided = [(one.epochs, one.kept, one.stopped) for one in found.rungs]
    begun = [one.parameters for one in found.trials]
    ended = {one.number: (one.state, one.value, one.spread, one.epochs) for one in found.finished}
    return [begun, decided, sorted(ended.items())]


async def test_a_seed_that_comes_to_its_rung_first_waits_there_for_the_others(tmp_path: Path) -> None:
    raw = searched(base=BASE, trials=1, sampler="random", seeds=2, halving={"first_epochs": 1})
    async with harness.crew(tmp_path) as made:
        state = SearchState.of(await harness.until_ended(made, await requested(made, raw)))
        logs = [made.tail.history(one).state.training for one in state.trials[0].sessions]
    assert [(one.rung, one.epochs) for one in state.paused] == [(0, 1), (1, 2)]
    for pause in state.paused:
        assert pause.value == statistics.mean(log.evaluations[pause.epochs - 1].values["val_loss"] for log in logs)


@pytest.mark.long
async def test_a_search_with_seeds_that_dies_at_its_trials_and_rungs_comes_to_the_same_and_trains_nothing_twice(
    tmp_path: Path,
) -> None:
    base = BASE | {"training": {"epochs": 2, "batch_size": 64}}
    about: dict[str, Any] = {"base": base, "trials": 2, "parallel": 2, "sampler": "random", "seeds": 2}
    raw = searched(**about, halving={"first_epochs": 1, "factor": 2})
    async with harness.crew(tmp_path / "whole") as made:
        whole = await harness.until_ended(made, await requested(made, raw))
    bus = MemoryBus()
    for after in ("trial.started", "rung.decided"):
        async with harness.crew(tmp_path / "killed", bus=bus) as made:
            session = await requested(made, raw, "mine")
            await harness.until_said(made, session, after)
    async with harness.crew(tmp_path / "killed", bus=bus) as made:
        killed = await harness.until_ended(made, session)
        logs = trainings(made)
    assert told_of(killed) == told_of(whole)
    assert isinstance(killed.outcome, SearchCompleted)
    state = SearchState.of(killed)
    assert len(logs) == 4
    assert sorted(logs) == sorted(id for trial in state.trials for id in trial.sessions)
    assert {log.state.request["reproducibility"]["seed"] for log in logs.values()} == {42, 43}
    best = next(trial for trial in state.finished if trial.number == killed.outcome.best_number)
    values = [logs[one.session].state.training.best.values["val_loss"] for one in best.seeds]  # type: ignore[union-attr]
    assert best.value == statistics.mean(values)
    for log in logs.values():
        told = [fact.event for fact in log.facts]
        epochs = [event.epoch for event in told if isinstance(event, ControlEvaluated)]
        assert epochs == sorted(set(epochs))
        assert not any(isinstance(event, WindowsReproduced) for event in told)


async def test_a_search_that_dies_between_the_seeds_of_a_trial_trains_the_others_with_what_the_first_one_has(
    tmp_path: Path,
) -> None:
    raw, bus, session = searched(trials=1, base=BASE, seeds=2), MemoryBus(), session_for("mine")
    wanted = Search.model_validate(raw)
    early: dict[str, Any] = read_request(wanted.trial(0, {RATE: 0.05, "model.dropout": 0.25})).resolved()
    async with harness.crew(tmp_path, ("ledger",), bus=bus) as made:
        first = await made.ground.submit(early, "trial", asked_by="x", request_id=f"{session}-trial-0")
    async with harness.crew(tmp_path, bus=bus) as made:
        assert await requested(made, raw, "mine") == session
        ended = SearchState.of(await harness.until_ended(made, session))
        other = made.tail.history(ended.trials[0].sessions[1]).state
    assert ended.trials[0].sessions[0] == first
    assert other.request["optimizer"]["learning_rate"] == 0.05
    assert other.request["reproducibility"]["seed"] == early["reproducibility"]["seed"] + 1


async def test_equal_trials_share_the_sessions_of_all_their_seeds(tmp_path: Path) -> None:
    space = {"model.hidden": [[8], [8]], RATE: [0.01]}
    async with harness.crew(tmp_path) as made:
        raw = searched(base=BASE, space=space, sampler="grid", seeds=2)
        state = SearchState.of(await harness.until_ended(made, await requested(made, raw)))
        sessions = trainings(made)
    assert [one.state for one in state.finished] == ["completed", "repeated"]
    assert state.trials[1].sessions == state.trials[0].sessions
    assert len(sessions) == 2
