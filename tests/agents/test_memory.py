"""A training that runs out of memory goes on in smaller parts of the same steps, and can be computed again."""

from __future__ import annotations

import sys
from contextlib import AsyncExitStack
from functools import reduce
from pathlib import Path
from typing import Any

import pytest

from agents.trainer.run import MOST_STARVED
from bus.memory import MemoryBus
from contracts.common import ChildEnded
from contracts.diagnostician import InterventionProposed, OutcomeJudged, ProblemDiagnosed
from contracts.envelope import Fact
from contracts.event import Event
from contracts.request import read_request
from contracts.roles import BUILT_IN
from contracts.session import SessionState
from contracts.trainer import (
    AuditCompleted,
    InterventionApplied,
    MemoryExhausted,
    TrainingCompleted,
    TrainingFailed,
    WindowRecorded,
)
from contracts.validator import CheckpointValidated
from runtime.diagnosis.fold import MOST_REWINDS
from runtime.diagnosis.health import diagnose
from runtime.home.home import Home
from runtime.home.workloads import Workloads, inspect_file
from runtime.host.swarm_node import SwarmNode
from runtime.jobs import resources
from tests.agents.test_diagnostician import NAN, SESSION, only
from tests.agents.test_ladder import SensedLog
from tests.harness import beside, crew, small_request, until_ended, until_said

GREEDY = """
import os
from pathlib import Path
from signal import SIGKILL

import numpy as np
import torch
from torch import nn
from stigmergy import Workload


class Greedy(nn.Linear):
    def __init__(self):
        super().__init__(4, 2)
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x):
        self.seen += self.training
        killed = Path("EVENTS")
        if killed.name and len(x) > 16:
            killed.write_text(f"oom 9\\noom_kill {int(killed.read_text().split()[-1]) + 1}")
            os.kill(os.getpid(), SIGKILL)
        held = torch.empty(len(x) * MEGABYTES << 18 if self.seen > LATE else 0)
        return super().forward(x)


class Wide(Workload):
    def data(self, o):
        x = np.random.default_rng(0).normal(size=(400, 4)).astype("f4")
        return {"x": x, "y": (x[:, 0] > 0).astype("i8")}

    def build(self, o, facts):
        return Greedy()

    def loss(self, model, batch):
        return nn.functional.cross_entropy(model(batch["x"]), batch["y"])
"""
"""A workload of which every row of a batch takes so many megabytes, behind so many batches that were trained on.

With a file of a container's memory events it does instead, beyond 16 rows, what the system does to who takes too much.
"""

LIMIT = 512 << 20

needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="memory is limited by Linux's means")


def asked_of_greed(home: Path, megabytes: int, events: str = "", late: int = 0, **changes: Any) -> dict[str, Any]:
    """A request for 15 steps of 64 rows of the workload, which is added to the home."""
    file = home.parent / "greedy.py"
    given = {"MEGABYTES": str(megabytes), "EVENTS": events, "LATE": str(late)}
    file.write_text(reduce(lambda text, name: text.replace(name, given[name]), given, GREEDY))
    Home(home).prepare()
    known = Workloads(home)
    known._write(known._added() | {"greedy": inspect_file(str(file))})
    request = small_request(
        model={"architecture": "workload", "workload": "greedy"},
        data={"source": "workload", "workload": "greedy"},
        training={"epochs": 3, "batch_size": 64},
        checkpoints={"every_steps": 5},
        **changes,
    )
    del request["loss"]
    return request


async def trained(
    home: Path, request: dict[str, Any], *, audited: bool = False, forked: bool = False, disturbed: str = ""
) -> tuple[SessionState, list[Event]]:
    """The session under the limit and its events; its full audit has passed where it is asked for, or that of a fork.

    Disturbed, the crew is gone once such an event is there, and another goes on with two who judge.
    """
    bus, made_with = MemoryBus(), {"training_memory_bytes": LIMIT}
    if disturbed:
        async with crew(home, BUILT_IN, bus=bus, **made_with) as made:
            session = await made.commands.submit(read_request(request).resolved(), request_id="r")
            await until_said(made, session, disturbed)
    async with crew(home, BUILT_IN, bus=bus, **made_with) as made, AsyncExitStack() as more:
        if disturbed:
            await more.enter_async_context(beside(made, ("diagnostician",), "another"))
        session = await made.commands.submit(read_request(request).resolved(), request_id="r")
        ended = await until_ended(made, session, 90)
        events = [fact.event for fact in made.tail.history(session).facts]
        if audited:
            await passes(made, session)
        if forked:
            fork = str((await made.commands.verbs["fork"]({"session": session, "step": 5}))["session"])
            assert (await until_ended(made, fork, 90)).weights_digest == ended.weights_digest
            await passes(made, fork)
    return ended, events


async def passes(made: SwarmNode, session: str) -> None:
    """A full audit of the session computes all of it again."""
    audit = await made.commands.verbs["audit"]({"session": session, "mode": "full"})
    outcome = (await until_ended(made, str(audit["session"]), 90)).outcome
    assert isinstance(outcome, AuditCompleted)
    assert outcome.verdict == "pass", outcome
    assert outcome.found.spans_checked == outcome.found.spans_total > 0


def levers(events: list[Event]) -> list[tuple[int, Any]]:
    """What took effect, each with the step at which it did."""
    return [(one.step, one.changes["halve_batch"]) for one in events if isinstance(one, InterventionApplied)]


@needs_linux
async def test_a_step_that_takes_too_much_memory_is_taken_in_smaller_parts_and_computed_again(tmp_path: Path) -> None:
    ended, events = await trained(tmp_path / "home", asked_of_greed(tmp_path / "home", 20), audited=True)
    assert isinstance(ended.outcome, TrainingCompleted)
    exhausted = [one for one in events if isinstance(one, MemoryExhausted)]
    assert [(one.step, one.batch, one.accumulate, one.limit) for one in exhausted] == [
        (0, 64, 1, LIMIT),
        (0, 32, 2, LIMIT),
    ]
    assert levers(events) == [(0, 2), (0, 4)]
    assert all(one.reproducible for one in events if isinstance(one, InterventionApplied))
    assert [one.helped for one in events if isinstance(one, OutcomeJudged)] == [False, True]
    assert sum(one.last - one.first for one in events if isinstance(one, WindowRecorded)) == 15
    assert {one.control for one in events if isinstance(one, CheckpointValidated)} == {"reproduced"}


@pytest.mark.long
@needs_linux
async def test_what_the_system_kills_for_memory_is_repaired_to_the_same_bits_whoever_judges_and_dies_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for home in (tmp_path / "refused" / "home", tmp_path / "killed" / "home"):
        home.parent.mkdir()
    home = tmp_path / "refused" / "home"
    ended, events = await trained(home, asked_of_greed(home, 20), forked=True)
    home, counts = tmp_path / "killed" / "home", tmp_path / "memory.events"
    counts.write_text("oom 9\noom_kill 0")
    monkeypatch.setattr(resources, "CGROUP", tmp_path)
    again, others = await trained(home, asked_of_greed(home, 0, str(counts)), disturbed="memory.exhausted")
    assert levers(others) == levers(events) == [(0, 2), (0, 4)]
    assert again.weights_digest == ended.weights_digest
    # A first checkpoint that was written at last counts as progress.
    assert sum(isinstance(one, ChildEnded) for one in others) == resources.killed_for_memory() >= 2 * MOST_STARVED


@needs_linux
async def test_what_no_smaller_part_helps_ends_with_the_number_of_rows_and_the_cure(tmp_path: Path) -> None:
    home = tmp_path / "home"
    request = asked_of_greed(home, 600)
    ended, events = await trained(home, request)
    assert levers(events) == [(0, 2), (0, 4), (0, 8)]
    assert isinstance(ended.outcome, TrainingFailed)
    assert ended.outcome.code == "out-of-memory"
    assert "A step of 8 x 8 rows took too much memory" in ended.outcome.message
    assert f"{MOST_REWINDS} automatic repairs were not enough" in ended.outcome.cure


@needs_linux
async def test_who_wants_to_decide_is_waited_for_without_a_child_and_may_pause_meanwhile(tmp_path: Path) -> None:
    request = asked_of_greed(tmp_path / "home", 10, late=7, diagnosis={"mode": "propose"})
    async with crew(tmp_path / "home", BUILT_IN, training_memory_bytes=LIMIT) as made:
        session = await made.commands.submit(read_request(request).resolved())
        proposed, verbs = await until_said(made, session, "intervention.proposed"), made.commands.verbs
        await verbs["pause"]({"session": session})
        await until_said(made, session, "training.paused")
        assert not [one for one in made.children.running() if one.purpose == "train"]
        await verbs["resume"]({"session": session})
        await verbs["approve"]({"session": session, "proposal": proposed.id})
        judged = (await until_said(made, session, "outcome.judged")).event
        await verbs["cancel"]({"session": session})
        ended = await until_ended(made, session)
        assert levers([fact.event for fact in made.tail.history(session).facts]) == [(0, 2)]
    assert isinstance(judged, OutcomeJudged)
    assert judged.helped
    assert not ended.training.segment.reproducible


class StarvedLog(SensedLog):
    """A session whose trainer runs out of memory."""

    def exhausted(self, rows: int = 64, parts: int = 1, judged: int = 256) -> Fact:
        about = {"segment": self.segment, "step": self.step, "batch": rows, "accumulate": parts, "evaluated": judged}
        return self.say("trainer", MemoryExhausted(**about, message="there is not enough memory", limit=LIMIT))


def starved(batch: int = 64, **asked: Any) -> StarvedLog:
    return StarvedLog(training={"batch_size": batch, "accumulate": 1}, **asked)


def test_rows_are_halved_from_the_checkpoint_before_on_and_three_times_by_itself() -> None:
    log, cuts = starved(every=100), []
    for _ in range(5):
        log.window()
    for rows in (64, 32, 16):
        proposed, id = log.proposed(log.exhausted(rows, 64 // rows))
        cuts.append((proposed.rewind_to, proposed.changes, proposed.remedy, proposed.automatic))
        log.applied(id, 200)
    assert cuts == [(200, {"halve_batch": parts}, "halve_batch", True) for parts in (2, 4, 8)]
    last = log.exhausted(8, 8)
    assert only(InterventionProposed, log.answer(last)) == []
    (told,) = only(ProblemDiagnosed, log.answer(last))
    assert (told.severity, told.first, told.evidence) == ("critical", 200, [last.id])
    assert f"{MOST_REWINDS} automatic repairs were not enough. swarm diagnose {SESSION} -o next.yaml" in told.cure


def test_before_the_first_window_memory_is_judged_as_well_and_a_cure_that_holds_has_helped() -> None:
    log = starved()
    proposed, id = log.proposed(log.exhausted())
    assert (proposed.rewind_to, proposed.changes) == (0, {"halve_batch": 2})
    log.applied(id, 0)
    verdicts = [one for _ in range(3) for one in only(OutcomeJudged, log.answer(log.window()))]
    verdicts += only(OutcomeJudged, log.answer(log.evaluation()))
    assert [one.helped for one in verdicts] == [True]


@pytest.mark.parametrize(("mode", "kinds"), [("off", 0), ("observe", 1), ("propose", 2)])
def test_without_leave_to_repair_memory_is_told_or_waits_for_a_person(mode: str, kinds: int) -> None:
    log = starved(diagnosis={"mode": mode})
    answer = log.answer(log.exhausted())
    assert len(answer) == kinds
    assert all(one.waits and not one.automatic for one in only(InterventionProposed, answer))


def test_what_cannot_be_halved_is_told_with_why_and_what_looks_at_whole_batches_is_named() -> None:
    one = starved(1, model={"architecture": "mlp"})
    proposed, id = one.proposed(one.exhausted(1))
    assert (proposed.changes, "evaluations in batches" in proposed.reason) == ({"halve_batch": 1}, True)
    one.applied(id, 0)
    (told,) = only(ProblemDiagnosed, one.answer(one.exhausted(1, judged=1)))
    assert "1 row cannot be halved. Choose a smaller model" in told.cure
    normed = starved(2, model={"architecture": "cnn"})
    assert (
        "2 rows cannot be halved: batch normalisation"
        in only(ProblemDiagnosed, normed.answer(normed.exhausted(2, judged=2)))[0].cure
    )
    fewer = starved(model={"architecture": "cnn"})
    assert "(batch normalisation takes its statistics over" in fewer.proposed(fewer.exhausted())[0].reason


def test_rows_that_are_still_looked_for_when_memory_runs_out_are_passed_over() -> None:
    log = starved()
    log.window()
    log.window([1.0, NAN] * 25)
    proposed, _ = log.proposed(log.exhausted())
    assert proposed.remedy == "halve_batch"


def test_the_next_request_takes_the_rows_in_the_smaller_parts_that_held_or_in_smaller_ones() -> None:
    resolved: Any = read_request(small_request()).resolved()
    log = StarvedLog(**resolved)
    _, id = log.proposed(log.exhausted())
    log.applied(id, 0, halve_batch=2)
    log.window()

    def following() -> list[tuple[str, object]]:
        answer = diagnose(log.history.state, log.history.facts)["next"]
        return [(line["path"], line["after"]) for line in answer["changes"]] if answer else []

    held = [("training.batch_size", 32), ("training.accumulate", 2)]
    assert following() == held, "a problem that was cured asks for nothing more"
    log.exhausted(32, 2)
    assert following() == [*held, ("training.batch_size", 16), ("training.accumulate", 4)]
