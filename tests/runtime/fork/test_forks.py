"""A fork goes on in its parent's very bits: unchanged it ends in the same weights, and it audits like any session."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from bus.blobs import DirectoryBlobs
from contracts.diagnostician import InterventionProposed
from contracts.errors import NotFound
from contracts.fork import Fork
from contracts.request import read_request
from contracts.session import SessionState
from contracts.trainer import TrainingCompleted, WindowRecorded
from runtime import audit
from runtime.audit import fork_check, recomputation
from runtime.audit.log_check import make_bundle
from runtime.bundle import verify_bundle
from runtime.bundle.reader import unpack_bundle
from runtime.home.home import Home
from runtime.host.swarm_node import SwarmNode
from runtime.jobs.children import Children
from runtime.log.archive import Archive, StoredSession
from runtime.log.session_log import SessionLog
from runtime.replay import audit_plan
from runtime.replay.audit_plan import AuditOptions
from runtime.replay.difference import difference
from runtime.replay.verdict import ReplayVerdict
from runtime.views.trace import Trace
from tests.harness import crew, kill_child, small_request, until_ended, until_said
from tests.runtime.audit.test_reexecution import audited

TRAINING = ("data_manager", "trainer", "checkpoint_keeper", "ledger", "diagnostician", "resource_monitor")
REQUEST = small_request(
    training={"epochs": 14, "batch_size": 64},
    checkpoints={"every_steps": 100},
    schedule={"type": "cosine"},
    diagnosis={"auto_fix": False},
)
REWOUND, FROM = 100, 200


@dataclass
class Family:
    """A parent with a superseded segment, and its forks by name."""

    home: Home
    sessions: dict[str, str] = field(default_factory=dict)
    live: ReplayVerdict | None = None
    """What an audit found of a fork that was being trained meanwhile."""

    def state(self, name: str) -> SessionState:
        return Archive(self.home).read(self.sessions[name]).history.state

    def digest(self, name: str) -> str:
        outcome = self.state(name).outcome
        assert isinstance(outcome, TrainingCompleted), (name, outcome)
        return outcome.weights_digest

    def windows(self, name: str, after: int, segment: int | None = None) -> list[dict[str, Any]]:
        """Windows on the path, or of one segment, whole as they were recorded."""
        history = Archive(self.home).read(self.sessions[name]).history
        seen = [fact.event for fact in history.facts if isinstance(fact.event, WindowRecorded)]
        mine = [
            one
            for one in seen
            if (one.segment == segment if segment else history.state.training.on_path(one.segment, one.last))
        ]
        return [one.model_dump(mode="json") for one in mine if one.first >= after]


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Family:
    made = Family(Home(tmp_path_factory.mktemp("family")))
    asyncio.run(_raise(made))
    return made


async def _raise(family: Family) -> None:
    async with crew(family.home.root, TRAINING) as made:
        parent = await made.commands.submit(read_request(REQUEST).resolved(), request_id="parent")
        await _reached(made, parent, FROM)
        await _rewound(made, parent)
        await _reached(made, parent, 200)
        family.sessions["parent"] = parent
        running = {"session": parent, "request_id": "running", "step": 150}
        family.sessions["of a running one"] = (await made.commands.verbs["fork"](running))["session"]
        await _complete(made, parent)
        wishes: dict[str, tuple[str, dict[str, Any]]] = {
            "unchanged": ("parent", {"step": 200}),
            "off the checkpoints": ("parent", {"step": 150}),
            "superseded": ("parent", {"step": REWOUND, "segment": 1}),
            "slower": ("parent", {"step": 150, "set": {"optimizer.learning_rate": 0.0001}}),
            "fork of a fork": ("slower", {"step": 200}),
            "without": ("parent", {"step": 150, "without": ["train:1-700"]}),
            "without more": ("without", {"step": 200, "without": ["train:701-710", "train:5"]}),
            "killed": ("parent", {"step": 150, "set": {"training.epochs": 30}}),
            "undisturbed": ("parent", {"step": 150, "set": {"training.epochs": 30}}),
        }
        for name, (of, wish) in wishes.items():
            body = {"session": family.sessions[of], "request_id": name} | wish
            family.sessions[name] = (await made.commands.verbs["fork"](body))["session"]
            if name == "killed":
                await until_said(made, family.sessions[name], "window.recorded")
                await kill_child(made, "train")
            await _complete(made, family.sessions[name])
        await _watched(family, made)


async def _watched(family: Family, made: SwarmNode) -> None:
    """Audit a fork while it is trained."""
    endless = {"step": 150, "set": {"training.epochs": 100_000, "early_stopping.enabled": False}}
    session = (await made.commands.verbs["fork"]({"session": family.sessions["parent"]} | endless))["session"]
    await _reached(made, session, 300)
    children = Children()
    try:
        family.live = await audited(family.home, session, AuditOptions("full", workers=1), children)
    finally:
        await children.close()
    assert made.tail.history(session).state.outcome is None
    await made.commands.verbs["cancel"]({"session": session})
    await until_ended(made, session)


async def _reached(made: SwarmNode, session: str, step: int) -> None:
    history = made.tail.history(session)
    async with asyncio.timeout(60):
        while history.state.step < step:
            await history.grown(history.size)


async def _rewound(made: SwarmNode, session: str) -> None:
    history = made.tail.history(session)
    proposal = InterventionProposed(
        rule="person", segment=1, rewind_to=REWOUND, changes={"learning_rate": 0.5}, reason="test", automatic=False
    )
    await made.ground.speak("diagnostician", session, proposal, history.facts[-1].id)
    await until_said(made, session, "intervention.applied")


async def _complete(made: SwarmNode, session: str) -> None:
    state = await until_ended(made, session)
    assert isinstance(state.outcome, TrainingCompleted), state.outcome


def test_a_fork_at_a_checkpoint_without_a_change_ends_in_its_parents_very_weights(family: Family) -> None:
    assert family.digest("unchanged") == family.digest("parent")
    assert family.windows("unchanged", 200) == family.windows("parent", 200), "whole, segment numbers included"
    assert family.windows("unchanged", 0)[0]["first"] == 200
    assert family.state("unchanged").fork.state_root is not None


def test_a_fork_where_no_checkpoint_was_kept_has_the_state_computed_again(family: Family) -> None:
    state = family.state("off the checkpoints")
    assert state.fork is not None
    assert (state.fork.state_root, state.fork.blob) == (None, None)
    assert family.digest("off the checkpoints") == family.digest("parent")
    first = min(state.training.checkpoints, key=lambda one: one.written.step)
    assert (first.written.step, first.written.weights_digest) == (150, state.fork.weights_digest)
    assert first.stored is not None
    assert "anchor" in first.stored.kept_as


def test_a_fork_of_a_superseded_segment_reproduces_its_windows(family: Family) -> None:
    gone = family.windows("parent", REWOUND, segment=1)
    assert gone
    assert family.windows("superseded", REWOUND)[: len(gone)] == gone
    assert family.digest("superseded") != family.digest("parent")


def test_a_change_parts_from_the_parent_at_the_step_of_the_fork_and_nowhere_else(family: Family) -> None:
    archive = Archive(family.home)
    parent, slower = (archive.read(family.sessions[name]).history for name in ("parent", "slower"))
    found = difference(parent, slower)
    assert found["request"] == {"optimizer.learning_rate": [0.001, 0.0001]}
    assert (found["resolved"], found["fingerprint"]["families"], found["data"]) == ({}, [], {})
    assert (found["windows"]["parted"]["first"], found["windows"]["parted"]["field"]) == (150, "learning_rate")
    assert found["decisions"]["same"], "the rewind is its parent's decision, and inherited"
    assert [one["by"] for one in found["decisions"]["applied"][1]] == ["its parent"]
    assert found["forks"][0] is None
    assert found["forks"][1]["step"] == 150


def test_a_fork_of_a_fork_inherits_all_changes_and_ends_in_its_parents_weights(family: Family) -> None:
    assert family.digest("fork of a fork") == family.digest("slower")
    state = family.state("fork of a fork")
    assert state.request["optimizer"]["learning_rate"] == 0.0001
    assert state.fork is not None
    assert state.fork.set == {}
    assert state.fork.changes == [{"step": REWOUND, "learning_rate": 0.5}], "the grandparent's decision"
    assert [one.step for one in state.fork.evaluations] == [23, 45, 68, 90, 113, 135, 158, 180], "of both"


def test_rows_left_out_keep_the_order_and_change_the_weights(family: Family) -> None:
    thinned, parent = family.windows("without", 150), family.windows("parent", 150)
    assert [one["index_digest"] for one in thinned] == [one["index_digest"] for one in parent]
    assert thinned[0]["losses"] != parent[0]["losses"]
    assert family.state("without").fork.rows_without == 700
    again = family.state("without more").fork
    assert again.rows_without == 710, "row 5 was left out by the parent already"
    assert [(one.first, one.last) for one in again.without] == [(1, 710)]


def test_a_fork_that_was_killed_and_resumed_ends_in_the_bits_of_one_that_was_not(family: Family) -> None:
    assert family.state("killed").training.claim is not None
    assert family.digest("killed") == family.digest("undisturbed")
    assert family.windows("killed", 0) == family.windows("undisturbed", 0)


@pytest.fixture(scope="module")
def verdicts(family: Family) -> dict[str, ReplayVerdict]:
    """Full audits of the forks that tell something of their own, with their parents at hand."""
    return asyncio.run(_judged(family))


FULL = ("off the checkpoints", "superseded", "fork of a fork", "without more", "killed")


async def _judged(family: Family) -> dict[str, ReplayVerdict]:
    children, found = Children(), {}
    try:
        for name in FULL:
            found[name] = await audited(family.home, family.sessions[name], AuditOptions("full", workers=2), children)
        found["by lot"] = await audited(
            family.home, family.sessions["slower"], AuditOptions("spot", segments=1), children
        )
    finally:
        await children.close()
    return found


@pytest.mark.parametrize("name", [*FULL, "by lot"])
def test_a_fork_passes_an_audit_that_computes_it_again(verdicts: dict[str, ReplayVerdict], name: str) -> None:
    found = verdicts[name]
    assert found.verdict == "pass", found.as_json()
    assert found.spans_checked > 0
    assert any("was read, and is audited by itself" in told for told in found.unchecked)
    assert not any("not computed from its parent" in told for told in found.unchecked)


async def test_a_fork_passes_offline_as_a_bundle_and_says_that_its_parent_is_not_there(
    family: Family, tmp_path: Path
) -> None:
    archive, blobs = Archive(family.home), DirectoryBlobs(family.home.blobs)
    session = family.sessions["off the checkpoints"]
    path = make_bundle(archive, session, blobs, tmp_path / "b.zip", wanted=("checkpoints", "dataset")).path
    log = audit.check_bundle(path, root=archive.root)
    assert log.divergences == ()
    assert verify_bundle.findings(path, archive.root)["divergence"] is None
    parent = family.state("off the checkpoints").fork
    assert any(f"its parent {parent.session} is not here" in told and parent.root in told for told in log.unchecked)
    children = Children()
    try:
        found = await recomputation.recompute(
            log, unpack_bundle(path, archive.root, tmp_path), AuditOptions("full"), children
        )
    finally:
        await children.close()
    assert found.verdict == "pass", found.as_json()
    assert any("was not computed from its parent, which is not here" in told for told in found.unchecked)


def test_a_genesis_that_does_not_follow_from_its_parents_log_fails(family: Family) -> None:
    kept = Archive(family.home).read(family.sessions["slower"])
    fork = kept.history.state.fork
    assert fork is not None
    assert against(family, kept) == ()
    lies = {
        "weights_digest": "f" * 64,
        "root": "f" * 64,
        "size": 10_000,
        "step": 200,
        "changes": [],
        "set": {"optimizer.learning_rate": 0.5},
        "evaluations": fork.evaluations[:-1],
        "dataset": "f" * 64,
    }
    for field_name, lie in lies.items():
        told = against(family, told_otherwise(kept, fork.model_copy(update={field_name: lie})))
        assert told, field_name
        assert told[0].position == 1
    honest = kept.history.state.request
    forged = told_otherwise(kept, fork, honest | {"schedule": {"type": "constant", "warmup_steps": 0}})
    assert "the request has schedule.type" in against(family, forged)[0].message


def against(family: Family, kept: StoredSession) -> tuple[audit.Divergence, ...]:
    return fork_check.check_genesis(kept, Archive(family.home), DirectoryBlobs(family.home.blobs)).divergences


def told_otherwise(kept: StoredSession, fork: Fork, request: dict[str, Any] | None = None) -> StoredSession:
    """The session as if its genesis had said something else."""
    genesis = kept.history.facts[0]
    changes = {"fork": fork} | ({"request": request} if request else {})
    history = SessionLog(kept.history.id)
    history.add([genesis._replace(event=genesis.event.model_copy(update=changes)), *kept.history.facts[1:]])
    return replace(kept, history=history)


def test_a_beginning_that_is_not_the_one_named_is_a_broken_rule(family: Family) -> None:
    kept = Archive(family.home).read(family.sessions["unchanged"])
    fork = kept.history.state.fork
    assert fork is not None
    other = told_otherwise(kept, fork.model_copy(update={"state_root": "f" * 64})).history
    (told,) = audit_plan.broken_rules(other.facts, other.state)
    assert "it begins with state_root" in told.message


def test_what_a_fork_of_running_training_says_of_its_parent_still_holds_when_that_has_ended(family: Family) -> None:
    state = family.state("of a running one")
    assert state.fork is not None
    assert not state.fork.sealed
    kept = Archive(family.home).read(family.sessions["of a running one"])
    assert against(family, kept) == ()


def test_a_running_fork_passes_as_far_as_it_went(family: Family) -> None:
    found = family.live
    assert found is not None
    assert found.verdict == "pass", found.as_json()
    assert found.steps_checked > 0
    assert any("training has not ended" in told for told in found.unchecked)


def test_the_steps_of_a_row_go_back_through_all_ancestors(family: Family) -> None:
    archive, blobs = Archive(family.home), DirectoryBlobs(family.home.blobs)
    whole = Trace.of(archive.read(family.sessions["parent"]).history, blobs, archive).row("train:3", 1000)
    kept = archive.read(family.sessions["fork of a fork"]).history
    found = Trace.of(kept, blobs, archive).row("train:3", 1000)
    assert found["steps"] == whole["steps"]
    assert {one["session"] for one in found["windows"]} == {*map(family.sessions.get, ("parent", "slower")), kept.id}
    assert all(one["held"] for one in found["windows"])
    alone = Trace.of(kept, blobs, None).row("train:3", 1000)
    assert alone["unknown"] == {"session": family.sessions["slower"], "upto": 200}
    assert alone["steps"] == [step for step in whole["steps"] if step > 200]
    assert Trace.of(kept, blobs, archive).step(100)["session"] == family.sessions["parent"]
    with pytest.raises(NotFound, match="was made by"):
        Trace.of(kept, blobs, None).step(100)


def test_a_row_that_was_left_out_is_told_with_the_steps_that_went_on_without_it(family: Family) -> None:
    archive, blobs = Archive(family.home), DirectoryBlobs(family.home.blobs)
    whole = Trace.of(archive.read(family.sessions["parent"]).history, blobs, archive).row("train:3", 1000)
    traced = Trace.of(archive.read(family.sessions["without"]).history, blobs, archive)
    found = traced.row("train:3", 1000)
    assert found["steps"] == [step for step in whole["steps"] if step <= 150]
    assert found["left_out"]["steps"] == [step for step in whole["steps"] if step > 150]
    step = found["left_out"]["steps"][0]
    marked = {one["place"] for one in traced.step(step)["rows"] if one.get("left_out")}
    assert "train:3" in marked
    assert not any(one.get("left_out") for one in traced.step(found["steps"][0])["rows"])
