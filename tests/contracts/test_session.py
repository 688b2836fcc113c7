"""The fold of a session as pure tables: what is said, and what it amounts to."""

from __future__ import annotations

import pytest

from contracts.common import HandlerFailed
from contracts.growing import GrowingTable
from contracts.operator import CancelRequested, PauseRequested, RedriveRequested, ResumeRequested
from contracts.session import Checkpoint
from contracts.trainer import TrainingPaused, TrainingResumed
from runtime.log import retention
from tests.contracts.told import Told


@pytest.mark.parametrize(
    ("segment", "step", "counts"),
    [(1, 5, True), (1, 10, True), (1, 11, False), (2, 11, True), (2, 20, True), (2, 21, False), (3, 21, True)],
)
def test_what_was_recorded_up_to_the_beginning_of_a_later_segment_counts(segment: int, step: int, counts: bool) -> None:
    told = Told()
    told.applied(10, 2)
    told.applied(20, 3)
    assert told.now.training.on_path(segment, step) is counts


def test_the_best_is_the_newest_improvement_and_final_is_the_last_that_is_usable() -> None:
    told = Told()
    for step, improved in ((10, True), (20, True), (30, False)):
        told.evaluated(step, improved=improved)
        told.written(step)
    assert _steps(told) == {"best": 20, "last": 30, "final": 30, "10": 10, "11": None}
    told.corrupt(30)
    assert _steps(told) == {"best": 20, "last": 20, "final": 20, "10": 10, "11": None}
    told.corrupt(20)
    assert _steps(told) == {"best": None, "last": 10, "final": 10, "10": 10, "11": None}


def test_a_rewind_takes_the_best_behind_it_off_the_path() -> None:
    told = Told()
    for step in (10, 20):
        told.evaluated(step, improved=True)
        told.written(step)
    told.applied(10, 2)
    assert _steps(told) == {"best": 10, "last": 10, "final": 10, "10": 10, "11": None}


def _steps(told: Told) -> dict[str, int | None]:
    found = {which: told.now.training.checkpoint(which) for which in ("best", "last", "final", "10", "11")}
    return {which: kept.written.step if kept else None for which, kept in found.items()}


def test_a_pause_ends_the_wish_to_pause_and_a_resume_the_wish_to_resume() -> None:
    told, wishes = Told(), []
    for lane, event in (
        ("operator", PauseRequested(asked_by="a")),
        ("trainer", TrainingPaused(by="person", segment=1, step=3)),
        ("operator", CancelRequested(asked_by="a")),
        ("operator", ResumeRequested(asked_by="a")),
        ("trainer", TrainingResumed(segment=1, step=3)),
    ):
        told.say(lane, event)
        wishes.append([type(wish).__name__ for _, wish in told.now.wishes])
    paused, cancelled, resumed = "PauseRequested", "CancelRequested", "ResumeRequested"
    assert wishes == [[paused], [], [cancelled], [cancelled, resumed], [cancelled]]


def test_what_is_redriven_is_neither_failed_nor_answered() -> None:
    told = Told()
    heard = told.stored(1)
    failure = told.say("validator", _failure("validator", heard), cause=heard)
    told.say("exporter", _failure("exporter", heard), cause=heard)
    told.say("operator", RedriveRequested(asked_by="a", failure="another"))
    assert told.now.answers("validator", heard)
    told.say("operator", RedriveRequested(asked_by="a", failure=failure))
    assert not told.now.answers("validator", heard)
    assert told.now.answers("exporter", heard)
    assert [seen.role for seen in told.now.failures] == ["exporter"]


def test_a_guests_failure_is_nobodys_and_is_not_remembered() -> None:
    told = Told()
    told.failed("guest_g", "guest_g", told.stored(1))
    assert not told.now.failures
    assert told.now.outcome is None


@pytest.mark.parametrize(("role", "goes"), [("exporter", False), ("validator", True)])
def test_a_checkpoint_waits_for_its_judge_until_the_judge_itself_has_failed(role: str, goes: bool) -> None:
    told = Told()
    told.written(10)
    stored = told.stored(10)
    told.failed(role, role, stored)
    assert ((1, 10) not in retention.obligations(told.now)) is goes


@pytest.mark.parametrize("said", ["checkpoints", "failures"])
def test_a_fold_costs_as_much_per_event_at_the_end_as_at_the_beginning(
    said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0
    held = GrowingTable._held

    def counted(table: GrowingTable[str, Checkpoint], key: str) -> object:
        nonlocal looks
        looks += 1
        return held(table, key)

    monkeypatch.setattr(GrowingTable, "_held", counted)
    monkeypatch.setattr(GrowingTable, "_copied", None)
    told, costs = Told(), []
    for n in range(1, 401):
        if said == "checkpoints":
            told.written(n)
            told.stored(n)
            told.corrupt(n)
        else:
            told.failed("exporter", "exporter", str(n))
        if n in (200, 400):
            costs.append(looks)
    assert costs[1] == 2 * costs[0]
    assert len(told.now.training.checkpoints if said == "checkpoints" else told.now.failures) == 400


def _failure(role: str, heard: str) -> HandlerFailed:
    return HandlerFailed(role=role, handler="h", heard=heard, error="no", attempts=3)
