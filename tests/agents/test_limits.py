"""A training ends once its steps, epochs or seconds are spent, and is the same when it is computed again."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agents.trainer.seconds_limit import trained_seconds
from contracts import trainer
from contracts.common import ChildEnded
from contracts.errors import InvalidInput, InvalidRequest
from contracts.operator import SessionRequested
from contracts.request import read_request
from contracts.session import SessionState
from contracts.trainer import InterventionApplied, TrainingCompleted, WindowRecorded
from runtime.bundle.verify_bundle import decision_against
from runtime.host.swarm_node import SwarmNode
from runtime.replay.audit_plan import unasked
from tests.harness import crew, kill_child, small_request, until_ended, until_said

FOR_EVER = {"training": {"epochs": 100_000, "batch_size": 64}, "early_stopping": {"enabled": False}}
COSINE = {"schedule": {"type": "cosine"}, "early_stopping": {"enabled": False}}


async def trained(made: SwarmNode, **changes: Any) -> tuple[SessionState, list[Any]]:
    session = await made.commands.submit(read_request(small_request(**changes)).resolved())
    ended = await until_ended(made, session)
    return ended, [fact.event for fact in made.tail.history(session).facts]


async def passes(made: SwarmNode, session: str) -> None:
    """A full audit of the session computes all of it again."""
    audit = await made.commands.verbs["audit"]({"session": session, "mode": "full"})
    ended = await until_ended(made, str(audit["session"]), 90)
    assert isinstance(ended.outcome, trainer.AuditCompleted)
    assert ended.outcome.verdict == "pass", ended.outcome


async def test_steps_and_epochs_end_a_training_whose_schedule_is_that_of_the_whole(tmp_path: Path) -> None:
    async with crew(tmp_path / "home") as made:
        whole, told = await trained(made, **COSINE)
        by_epochs, windows = await trained(made, **COSINE, limits={"epochs": 2, "steps": 1000, "seconds": 600})
        by_steps, _ = await trained(made, **COSINE, limits={"steps": by_epochs.step, "epochs": 4})
        assert isinstance(by_epochs.outcome, TrainingCompleted)
        assert isinstance(by_steps.outcome, TrainingCompleted)
        assert (by_epochs.outcome.epochs, by_epochs.step) == (2, 45)
        assert whole.step == 113
        assert not by_epochs.outcome.stopped_early
        assert by_epochs.own.total_steps == 45
        first = [one for one in told if isinstance(one, WindowRecorded) and one.last <= 45]
        assert [one for one in windows if isinstance(one, WindowRecorded)] == first
        assert by_steps.weights_digest == by_epochs.weights_digest != whole.weights_digest
        await passes(made, by_steps.id)
        for limit in ({"limits.steps": 20}, {"limits.epochs": 1}):
            with pytest.raises(InvalidInput, match="no step is left after step 45"):
                await made.commands.verbs["fork"]({"session": whole.id, "step": 45, "set": limit})


async def test_seconds_end_a_training_at_a_windows_end_and_whoever_computes_it_again_ends_there(tmp_path: Path) -> None:
    async with crew(tmp_path / "home") as made:
        asked = read_request(small_request(**FOR_EVER, limits={"seconds": 2.5})).resolved()
        session = await made.commands.submit(asked)
        await until_said(made, session, "checkpoint.written")
        await kill_child(made, "train")
        ended = await until_ended(made, session)
        facts = made.tail.history(session).facts
        applied = next(fact for fact in facts if isinstance(fact.event, InterventionApplied))
        spent, outcome = applied.event, ended.outcome
        assert isinstance(spent, InterventionApplied)
        assert isinstance(outcome, TrainingCompleted)
        assert spent.proposal == facts[0].id
        assert spent.by == "limits.seconds"
        assert spent.changes == {"stop": True}
        assert spent.seconds is not None
        assert spent.seconds >= 2.5
        assert outcome.step == spent.step
        assert not outcome.stopped_early
        assert sum(isinstance(fact.event, ChildEnded) for fact in facts) == 1
        # What the log's times say of both attempts is what was counted.
        before = [fact for fact in facts if fact.seq < applied.seq]
        assert trained_seconds(before) == pytest.approx(spent.seconds, abs=1.0)
        await passes(made, session)
        fork = str((await made.commands.verbs["fork"]({"session": session, "step": 50}))["session"])
        assert (await until_ended(made, fork)).outcome is not None


@pytest.mark.parametrize(
    ("limits", "seconds", "changes", "against"),
    [
        ({"seconds": 2.5}, 2.5, {"stop": True}, ""),
        ({"seconds": 2.5}, 2.4, {"stop": True}, "2.5"),
        ({"seconds": 2.5}, None, {"stop": True}, "None seconds"),
        ({}, 9.0, {"stop": True}, "allows None"),
        ({"seconds": 2.5}, math.nan, {"stop": True}, "nan seconds"),
        ({"seconds": "2.5"}, 9.0, {"stop": True}, "allows 2.5"),
        ({"seconds": 2.5}, 2.6, {"learning_rate": 0.5}, "applies"),
    ],
)
def test_an_end_for_want_of_seconds_is_held_against_the_request_by_both_programs(
    limits: dict[str, Any], seconds: float | None, changes: dict[str, Any], against: str
) -> None:
    said = InterventionApplied(
        proposal="x", by=trainer.SPENT, segment=2, step=9, changes=changes, reproducible=False, seconds=seconds
    )
    session = replace(SessionState("s"), genesis=SessionRequested.model_construct(request={"limits": limits}))
    ours = unasked(said, {}, session, 2)
    theirs = decision_against(said.model_dump(mode="json"), None, limits)
    assert bool(ours) == bool(theirs) == bool(against)
    assert against in ours


def test_limits_that_are_no_section_allow_nothing() -> None:
    said = InterventionApplied(
        proposal="x", by=trainer.SPENT, segment=2, step=9, changes={"stop": True}, reproducible=False, seconds=9.0
    )
    session = replace(SessionState("s"), genesis=SessionRequested.model_construct(request={"limits": [2.5]}))
    assert "allows None" in unasked(said, {}, session, 2)


def test_what_is_no_limit_is_refused() -> None:
    wrong = {"steps": 0, "epochs": -1, "seconds": "soon", "hours": 1}
    with pytest.raises(InvalidRequest) as refused:
        read_request(small_request(limits=wrong))
    assert {problem.path for problem in refused.value.problems} == {f"limits.{name}" for name in wrong}


def test_a_request_without_limits_is_what_it_was() -> None:
    assert "limits" not in read_request(small_request()).resolved()
    assert read_request(small_request(limits={"steps": 3})).resolved()["limits"] == {"steps": 3}
