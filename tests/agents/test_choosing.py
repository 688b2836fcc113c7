"""Which checkpoints are judged on which rows, as pure tables: what was said, and what there is to judge."""

from __future__ import annotations

from typing import Any

import pytest

from agents.validator.tasks import tasks, tasks_at_end
from contracts.checkpoint_keeper import CheckpointStored
from tests.contracts.told import Told

WANTED = {"validation": {"test_set": True}}


def ended(request: dict[str, Any], **splits: int) -> Told:
    """A session whose best step is 23 and whose last is 46, both stored."""
    told = Told(request)
    told.prepared(**splits)
    told.claimed()
    for step, reason in ((23, "best"), (46, "final")):
        told.evaluated(step, improved=reason == "best")
        told.written(step, reason=reason)
        told.stored(step)
    return told


def judged(told: Told) -> dict[int, list[tuple[str, int]]]:
    """By the step that was stored: which split is judged with the weights of which step."""
    kept = [fact.event for fact in told.facts if isinstance(fact.event, CheckpointStored)]
    return {one.step: [(task.split, task.written.step) for task in tasks(one, told.now, told.facts)] for one in kept}


def test_the_test_rows_are_met_by_the_best_weights_and_not_by_the_last() -> None:
    told = ended(WANTED, train=8, val=1, test=1)
    assert judged(told) == {23: [("val", 23)], 46: [("val", 46), ("test", 23)]}


def test_where_no_best_is_left_the_last_weights_meet_the_test_rows() -> None:
    told = ended(WANTED, train=8, val=1, test=1)
    told.corrupt(23)
    assert judged(told)[46] == [("val", 46), ("test", 46)]


@pytest.mark.parametrize(
    ("request_", "splits"), [({}, {"train": 8, "val": 1, "test": 1}), (WANTED, {"train": 9, "val": 1})]
)
def test_test_rows_that_nobody_asked_for_or_that_are_not_there_meet_nothing(
    request_: dict[str, Any], splits: dict[str, int]
) -> None:
    assert judged(ended(request_, **splits)) == {23: [("val", 23)], 46: [("val", 46)]}


@pytest.mark.parametrize("reason", ["planned", "best"])
@pytest.mark.parametrize("early", [True, False])
def test_where_training_was_ended_at_a_checkpoint_of_another_reason_that_is_judged_as_its_end(
    reason: str, *, early: bool
) -> None:
    told = Told(WANTED)
    told.prepared(train=8, val=1, test=1)
    told.claimed()
    told.evaluated(46, improved=reason == "best")
    told.written(46, reason=reason)
    before: list[tuple[str, int]] = []
    if early:
        told.stored(46)
        before = judged(told)[46]
    told.completed(46)
    at_end = [(task.split, task.written.step) for task in tasks_at_end(told.now, told.facts)]
    if not early:
        told.stored(46)
    assert [*before, *at_end, *([] if early else judged(told)[46])] == [("val", 46), ("test", 46)]
