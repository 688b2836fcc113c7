"""So many sessions train at once as are allowed, in the order of their requests; what waits says so."""

from __future__ import annotations

from pathlib import Path

from agents.trainer.machine import Place, Turns, default_slots
from bus.memory import MemoryBus
from contracts.operator import CancelRequested
from contracts.queue import Demand, TrainerRoom
from contracts.request import read_request
from contracts.trainer import TrainingCancelled, TrainingCompleted
from runtime.host.swarm_node import SwarmNode
from runtime.node.presence import TrainingRoom
from runtime.views.view import summary
from tests.harness import crew, small_request, until_ended, until_said

ROLES = ("data_manager", "trainer", "checkpoint_keeper", "resource_monitor", "ledger")


def waiting(place: int) -> Place:
    """The place of a session that has not begun."""
    return (True, place, f"s{place}")


def turns(most: int, free: int | None = None, *asked: int) -> Turns:
    made = Turns(most, free=lambda: free)
    for one in asked:
        made.ask(f"s{one}", waiting(one))
    return made


def test_turns_come_in_the_order_of_the_requests_and_no_more_at_once_than_there_are() -> None:
    queue = turns(2, None, 3, 1, 2)
    assert not queue.take("s3")
    assert queue.take("s1")
    assert not queue.take("s3")
    assert queue.take("s2")
    assert not queue.take("s3")
    queue.leave("s1")
    assert queue.take("s3")


def test_what_has_begun_goes_on_before_what_has_not() -> None:
    queue = turns(1, None, 1)
    queue.ask("s9", (False, 9, "s9"))
    assert not queue.take("s1")
    assert queue.take("s9")


def test_whoever_leaves_the_queue_keeps_nobody_waiting() -> None:
    queue = turns(1, None, 1, 2)
    queue.leave("s1")
    assert queue.take("s2")


def test_whoever_has_a_turn_and_asks_again_keeps_nobody_waiting() -> None:
    queue = turns(2, None, 1, 2)
    assert queue.take("s1")
    queue.ask("s1", (False, 1, "s1"))
    assert queue.take("s1")
    assert queue.take("s2")


def test_the_first_needs_no_memory_that_is_free_and_the_next_one_does() -> None:
    queue = turns(4, 100 << 20, 1, 2)
    assert queue.take("s1")
    assert not queue.take("s2")
    assert turns(4, None, 1).take("s1")


def test_what_needs_more_than_others_have_left_is_passed_over_and_what_fits_never_is_not_in_hand() -> None:
    made = Turns(3, TrainerRoom(memory_bytes=10, devices=1), free=lambda: None)
    for n, needs in enumerate([Demand(6, 1), Demand(5, 0), Demand(0, 1), Demand(4, 0), Demand(11, 0)]):
        made.ask(f"s{n}", waiting(n), needs)
    assert [made.take(f"s{n}") for n in range(5)] == [True, False, False, True, False]
    assert made.room == TrainingRoom(3, ("s0", "s3", "s1", "s2"), 10, 1)
    made.leave("s0")
    assert [made.take(f"s{n}") for n in (1, 2)] == [True, True]


def test_there_are_as_many_slots_as_cores_memory_and_accelerators_hold() -> None:
    gib, cores = 1 << 30, 8
    rooms = [(None, 0), (64 * gib, 0), (2 * gib, 0), (gib // 4, 0), (64 * gib, 1), (64 * gib, 4)]
    told = [default_slots(cores, TrainerRoom(memory_bytes=memory, devices=devices)) for memory, devices in rooms]
    assert told == [8, 8, 4, 1, 4, 8]


async def requested(made: SwarmNode, name: str, **changes: object) -> str:
    request = small_request(name=name, diagnosis={"auto_fix": False}, **changes)
    return await made.commands.submit(read_request(request).resolved())


async def test_one_trains_at_a_time_in_the_order_of_requests_what_waits_says_so_and_can_be_cancelled(
    tmp_path: Path,
) -> None:
    async with crew(tmp_path / "home", ROLES, trainings=1) as made:
        long = {"epochs": 100_000, "batch_size": 64}
        first = await requested(made, "first", training=long, early_stopping={"enabled": False})
        await until_said(made, first, "window.recorded")
        second, third, fourth = [await requested(made, name) for name in ("second", "third", "fourth")]
        for one in (second, third, fourth):
            await until_said(made, one, "dataset.prepared")
        assert "turn to train" in summary(made.tail.history(second).state)["waits"]
        await made.ground.speak("operator", third, CancelRequested(asked_by="client"), "")
        cancelled = await until_ended(made, third)
        assert isinstance(cancelled.outcome, TrainingCancelled)
        assert cancelled.training.claim is None
        assert made.tail.history(second).state.training.claim is None
        assert {one.session for one in made.children.running() if one.purpose == "train"} == {first}
        await made.ground.speak("operator", first, CancelRequested(asked_by="client"), "")
        ended = [await until_ended(made, one) for one in (second, fourth)]
        assert all(isinstance(one.outcome, TrainingCompleted) for one in ended)
        assert not summary(ended[0])["waits"]
        claims = [fact for one in (second, fourth) for fact in made.tail.history(one).facts]
        said = {(fact.envelope.subject, fact.name): fact.seq for fact in claims}
    assert said[second, "training.completed"] < said[fourth, "training.claimed"]


async def test_what_waited_when_its_process_ended_is_trained_by_the_next_one(tmp_path: Path) -> None:
    home, bus = tmp_path / "home", MemoryBus()
    async with crew(home, ROLES, bus=bus, trainings=1) as made:
        long = {"epochs": 100_000, "batch_size": 64}
        first = await requested(made, "first", training=long, early_stopping={"enabled": False})
        await until_said(made, first, "window.recorded")
        second = await requested(made, "second")
        await until_said(made, second, "dataset.prepared")
    async with crew(home, ROLES, bus=bus, trainings=1) as made:
        await made.commands.verbs["cancel"]({"session": first})
        assert isinstance((await until_ended(made, second)).outcome, TrainingCompleted)


async def test_sessions_that_want_the_same_data_at_once_have_them_prepared_once(tmp_path: Path) -> None:
    rows = "\n".join(f"{n},{n % 7},{'xy'[n % 2]}" for n in range(400))
    (tmp_path / "table.csv").write_text(f"a,b,label\n{rows}\n")
    data = {"source": "csv", "path": str(tmp_path / "table.csv"), "target": "label"}
    async with crew(tmp_path / "home", ("data_manager",), data_roots=(str(tmp_path),)) as made:
        sessions = [await requested(made, f"n{n}", data=data) for n in range(4)]
        said = [(await until_said(made, one, "dataset.prepared")).event for one in sessions]
    assert sorted(one.reused for one in said) == [False, True, True, True]  # type: ignore[attr-defined]
