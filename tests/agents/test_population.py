"""What a population promises: decided by recorded values alone, copied from a checkpoint, the same whoever dies."""

from __future__ import annotations

import math
import random
import shlex
from itertools import pairwise
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from agents.hyperparameter_specialist.population import PopulationProgress, chance, drawn, founders, nudged
from bus.memory import MemoryBus
from contracts.hyperparameter_specialist import (
    SEARCH,
    GenerationDecided,
    LineageTraced,
    SearchCompleted,
    SearchFailed,
    SearchState,
    TrialFinished,
    TrialPaused,
    TrialStarted,
)
from contracts.request.population import Population
from contracts.request.reading import assigned
from contracts.request.search import read_search
from contracts.request.space import Choice, Interval, Wholes
from contracts.session import SessionState
from contracts.trainer import CheckpointWritten, ControlEvaluated, TrainingClaimed, TrainingCompleted
from contracts.training import TrainingState
from runtime.home.home import Home
from runtime.jobs.children import Children
from runtime.log.archive import Archive
from runtime.replay.audit_plan import AuditOptions
from runtime.views.lineage import lineage
from tests import harness
from tests.runtime.audit.test_reexecution import audited

RATE, DROPOUT = "optimizer.learning_rate", "model.dropout"
SPACE: dict[str, Any] = {
    RATE: {"type": "float", "low": 1e-4, "high": 1e-1, "log": True},
    DROPOUT: {"type": "float", "low": 0.05, "high": 0.5},
}


def population(**changes: Any) -> Population:
    base = harness.small_request(training={"epochs": 8, "batch_size": 64}, diagnosis={"auto_fix": False})
    raw = {"method": "population", "base": base, "space": SPACE, "size": 8, "generation_epochs": 2, "seed": 3}
    found = read_search(raw | changes)
    assert isinstance(found, Population)
    return found


# Drawing


def test_what_is_drawn_follows_from_the_key_and_lies_within_the_domain() -> None:
    assert chance(3, 1, 2, "x") == chance(3, 1, 2, "x") != chance(3, 2, 1, "x")
    domains = [
        Interval(type="float", low=1e-4, high=0.1, log=True),
        Interval(type="float", low=-1.0, high=1.0),
        Wholes(type="int", low=3, high=30, step=4),
        Wholes(type="int", low=1, high=1000, log=True),
        Choice(type="choice", options=("a", "b", "c")),
    ]
    for domain in domains:
        values = [drawn(domain, chance(seed)) for seed in range(200)]
        if isinstance(domain, Choice):
            assert set(values) == {"a", "b", "c"}
            assert nudged(domain, "a", 2.0) == "a"
            continue
        numbers: list[Any] = values
        assert all(domain.low <= value <= domain.high for value in numbers)
        assert min(numbers) < domain.low + 0.1 * (domain.high - domain.low) < max(numbers)
        assert nudged(domain, numbers[0], 1e6 if numbers[0] > 0 else -1e6) == drawn(domain, 1 - 1e-12)
    assert all((value - 3) % 4 == 0 for value in (drawn(domains[2], chance(seed)) for seed in range(50)))  # type: ignore[operator]


def test_members_begin_apart_the_first_one_as_the_base() -> None:
    few = population(space={DROPOUT: [0.1, 0.2, 0.3]}, size=3)
    assert sorted(values[DROPOUT] for values in founders(few)) == [0.1, 0.2, 0.3]
    many = population()
    assert founders(many)[0] == {RATE: 0.001, DROPOUT: 0.1}
    assert founders(many) == founders(many) != founders(population(seed=4))


# Deciding


def trained(
    wanted: Population, order: random.Random, lost: frozenset[int] = frozenset()
) -> tuple[SearchState, list[Any]]:
    """A population whose members come to the end of a generation in any order; lost trials end without a value."""
    search_state, ends = SearchState(), list[Any]()
    while True:
        progress = PopulationProgress(wanted, search_state)
        if progress.complete:
            ends += progress.conclusion()
            return search_state, ends
        trials = {number: waiting_at(18 * (progress.generation + 1)) for number in progress.running}
        training = progress.training
        stopped = [number for number in progress.running if number not in training and number not in progress.members]
        if (decision := progress.decision(trials)) is not None:
            told: Any = decision
        elif stopped:
            told = TrialFinished(number=stopped[0], session="", state="stopped")
        else:
            number = order.choice(training[: wanted.parallel])
            if number not in progress.started:
                copy = progress.copy(number)
                parameters = copy.parameters if copy else founders(wanted)[number]
                told = TrialStarted(number=number, session=f"s{number}", parameters=parameters)
            elif number in lost:
                told = TrialFinished(number=number, session="", state="failed")
            else:
                value = abs(math.log10(progress.started[number].parameters[RATE]) + 2)  # type: ignore[arg-type]
                last = progress.generation == len(wanted.generations)
                told = (
                    TrialFinished(number=number, session=f"s{number}", state="completed", value=value)
                    if last
                    else TrialPaused(number=number, rung=progress.generation, epochs=0, value=value)
                )
        search_state = SEARCH.folds[type(told)](search_state, told, None)


def waiting_at(step: int) -> SessionState:
    return SessionState("s", own=TrainingState(paused_by_plan=step))


@settings(max_examples=12, deadline=None)
@given(st.randoms(use_true_random=False), st.sampled_from([1, 3, 8]))
def test_the_same_seed_makes_the_same_population_whatever_ends_first(order: random.Random, parallel: int) -> None:
    state, ends = trained(population(parallel=parallel), order)
    first, conclusion = trained(population(), random.Random(0))
    assert state.generations == first.generations
    assert ends == conclusion
    assert {one.number: one.parameters for one in state.trials} == {one.number: one.parameters for one in first.trials}


def test_the_worst_go_on_from_the_best_and_the_lineage_tells_how_the_best_came_about() -> None:
    wanted = population(parallel=4)
    state, ends = trained(wanted, random.Random(1))
    traced, completed = ends
    assert isinstance(traced, LineageTraced)
    assert isinstance(completed, SearchCompleted)
    assert [decided.epochs for decided in state.generations] == [2, 4, 6]
    parameters = {trial.number: trial.parameters for trial in state.trials}
    values = {pause.number: pause.value for pause in state.paused if pause.rung == 0}
    decided = state.generations[0]
    best, worst = (
        sorted(range(8), key=lambda n: values[n] or 0)[:2],
        sorted(range(8), key=lambda n: values[n] or 0)[-2:],
    )
    assert {copy.trial for copy in decided.copies} <= set(best)
    assert sorted(decided.stopped) == sorted(worst) == [copy.member for copy in decided.copies]
    for copy in (copy for each in state.generations for copy in each.copies):
        assert parameters[copy.number] == copy.parameters != parameters[copy.trial]
    assert traced.stages[-1].parameters == completed.best_parameters
    assert traced.stages[0].step == 0
    for before, after in zip(traced.stages, traced.stages[1:], strict=False):
        copy = next(copy for each in state.generations for copy in each.copies if copy.number == after.number)
        assert (copy.trial, copy.step) == (before.number, after.step)


def test_a_member_that_was_lost_goes_on_from_a_better_one_and_nobody_goes_on_from_it() -> None:
    state, ends = trained(population(size=5, share=0.2), random.Random(0), frozenset({1, 2, 4}))
    assert {1, 2, 4} <= {copy.member for copy in state.generations[0].copies}
    assert not {copy.trial for copy in state.generations[0].copies} & {1, 2, 4}
    assert isinstance(ends[-1], SearchCompleted)


def test_a_population_in_which_all_were_lost_has_failed() -> None:
    _, ends = trained(population(size=3), random.Random(0), frozenset(range(3)))
    assert [type(end) for end in ends] == [SearchFailed]


def test_members_whose_data_are_rejected_begin_no_others() -> None:
    wanted = population(size=3)
    state = SearchState(
        trials=(TrialStarted(number=0, session="s0", parameters=founders(wanted)[0]),),
        finished=(TrialFinished(number=0, session="s0", state="rejected"),),
    )
    progress = PopulationProgress(wanted, state)
    assert progress.complete
    (failed,) = progress.conclusion()
    assert isinstance(failed, SearchFailed)
    assert failed.type == "resource"


def test_equal_members_keep_their_own_state() -> None:
    wanted = population(size=4, share=0.5)
    state = SearchState(
        trials=tuple(TrialStarted(number=n, session="", parameters=one) for n, one in enumerate(founders(wanted))),
        paused=tuple(TrialPaused(number=number, rung=0, epochs=2, value=0.5) for number in range(4)),
    )
    decided = PopulationProgress(wanted, state).decision({number: waiting_at(45) for number in range(4)})
    assert isinstance(decided, GenerationDecided)
    assert (decided.kept, decided.copies) == ([0, 1, 2, 3], [])


# Training


async def test_a_population_that_dies_between_ends_the_same_and_its_best_member_audits_and_is_trained_again(
    tmp_path: Path,
) -> None:
    base = harness.small_request(training={"epochs": 2, "batch_size": 64}, diagnosis={"auto_fix": False})
    raw = population(base=base, size=2, share=0.5, generation_epochs=1, parallel=2).resolved()
    bus, killed, calm = MemoryBus(), tmp_path / "killed", tmp_path / "calm"
    async with harness.crew(calm) as made:
        session = await made.ground.submit(raw, "search", asked_by="me")
        undisturbed = SearchState.of(await harness.until_ended(made, session))
    async with harness.crew(killed, bus=bus) as made:
        session = await made.ground.submit(raw, "search", asked_by="me")
        await harness.until_said(made, session, "trial.started")
        await harness.kill_child(made, "train")
        await harness.until_said(made, session, "generation.decided")
    async with harness.crew(killed, bus=bus) as made:
        ended = await harness.until_ended(made, session)
        state = SearchState.of(ended)
        logs = {trial.number: made.tail.history(trial.session) for trial in state.trials}
        for log in logs.values():
            await harness.until_ended(made, log.id)
        for stage in lineage(ended):
            words = shlex.split(stage["command"])
            change = assigned([word for flag, word in pairwise(words) if flag == "--set"])
            wish = {"session": words[2], "step": int(words[4]), "set": change, "request_id": words[-1]}
            again = (await made.commands.verbs["fork"](wish))["session"]
            repeated = await harness.until_ended(made, again)
    copy = state.generations[0].copies[0]
    children = Children()
    try:
        for log in (logs[copy.number], logs[copy.trial]):
            found = await audited(Home(killed), log.id, AuditOptions("full", workers=1), children)
            assert (found.verdict, found.divergences) == ("pass", ()), log.id
    finally:
        await children.close()
    told = {number: [fact.event for fact in log.facts] for number, log in logs.items()}
    assert SearchState.of(Archive(Home(killed)).read(session).history.state) == state
    assert [one.parameters for one in state.trials] == [one.parameters for one in undisturbed.trials]
    assert [(one.kept, one.stopped) for one in state.generations] == [
        (one.kept, one.stopped) for one in undisturbed.generations
    ]
    assert {one.number: (one.state, one.value) for one in state.finished} == {
        one.number: (one.state, one.value) for one in undisturbed.finished
    }
    fork = logs[copy.number].state.fork
    assert fork is not None
    written = [event for event in told[copy.trial] if isinstance(event, CheckpointWritten) and event.step == copy.step]
    assert (fork.session, fork.step) == (copy.session, copy.step)
    assert fork.weights_digest == written[0].weights_digest
    # Every epoch of every trial was trained once.
    assert sorted(sum(isinstance(event, ControlEvaluated) for event in events) for events in told.values()) == [1, 1, 2]
    for events in told.values():
        newest = 0
        for event in events:
            newest = event.step if isinstance(event, CheckpointWritten) else newest
            assert not isinstance(event, TrainingClaimed) or event.resumed_from >= newest or not newest
    assert isinstance(ended.outcome, SearchCompleted)
    best = logs[ended.outcome.best_number or 0].state.outcome
    assert isinstance(best, TrainingCompleted)
    assert isinstance(repeated.outcome, TrainingCompleted)
    assert repeated.outcome.weights_digest == best.weights_digest
