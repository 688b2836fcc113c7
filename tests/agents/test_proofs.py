"""What an intervention was worth is shown by two forks from its very bits, once, whoever is killed meanwhile."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from agents.diagnostician.proof import proven
from bus.blobs import DirectoryBlobs
from bus.memory import MemoryBus
from contracts.diagnostician import (
    InterventionProposed,
    InterventionProven,
    OutcomeJudged,
    ProofFailed,
    ProofForked,
    ProofRequested,
    ProofState,
)
from contracts.errors import Refused, SwarmError
from contracts.request import read_request
from contracts.session import SessionState
from contracts.trainer import InterventionApplied, TrainingCompleted, WindowRecorded
from contracts.training import TRIAL
from runtime import audit
from runtime.home.home import Home
from runtime.host.swarm_node import SwarmNode
from runtime.log.archive import Archive
from runtime.log.session_log import SessionLog
from runtime.views.summaries import Summaries
from tests.harness import crew, small_request, until_ended, until_said

TRAINING = ("data_manager", "trainer", "checkpoint_keeper", "ledger", "diagnostician", "resource_monitor")
DIVERGING = small_request(
    optimizer={"type": "sgd", "learning_rate": 10.0},
    training={"epochs": 6, "batch_size": 64},
    diagnosis={"auto_fix": True, "prove": True},
)


@dataclass
class Proofs:
    """A home in which a diverging session was repaired, and the repair proven without being asked twice."""

    home: Home
    sessions: dict[str, str] = field(default_factory=dict)
    errors: dict[str, SwarmError] = field(default_factory=dict)

    def history(self, name: str) -> SessionLog:
        return Archive(self.home).read(self.sessions[name]).history

    def state(self, name: str) -> SessionState:
        return self.history(name).state

    def said(self, name: str, kind: type[Any]) -> list[Any]:
        return [fact.event for fact in self.history(name).facts if isinstance(fact.event, kind)]


@pytest.fixture(scope="module")
def proofs(tmp_path_factory: pytest.TempPathFactory) -> Proofs:
    made = Proofs(Home(tmp_path_factory.mktemp("proofs")))
    asyncio.run(_shown(made))
    return made


async def _shown(proofs: Proofs) -> None:
    bus = MemoryBus()
    async with crew(proofs.home.root, TRAINING, bus=bus) as made:
        repaired = await made.commands.submit(read_request(DIVERGING).resolved(), request_id="repaired")
        proofs.sessions["repaired"] = repaired
        asked = await until_said(made, repaired, "proof.requested")
        proofs.sessions["proof"] = asked.event.session
        await until_said(made, asked.event.session, "proof.forked")
    # The crew is gone in the middle of it; the next one goes on.
    async with crew(proofs.home.root, TRAINING, bus=bus) as made:
        await until_ended(made, proofs.sessions["proof"], 120)
        proofs.sessions["asked again"] = (await made.commands.verbs["prove"]({"session": repaired}))["session"]
        forked = ProofState.of(made.tail.history(proofs.sessions["proof"]).state).forked
        assert forked is not None
        proofs.sessions |= {"with": forked.with_it, "without": forked.without_it}
        await _refused(proofs, made)


async def _refused(proofs: Proofs, made: SwarmNode) -> None:
    """Wishes for proofs that there are none of."""
    for name, body in {
        "nothing applied": {"session": proofs.sessions["with"]},
        "no such number": {"session": proofs.sessions["repaired"], "intervention": 9},
        "under a session that is no proof": {"session": proofs.sessions["with"], "step": 0, "under": "last"},
    }.items():
        try:
            await made.commands.verbs["fork" if "step" in body else "prove"](body)
        except SwarmError as error:
            proofs.errors[name] = error


def test_the_diagnostician_has_its_repair_proven_when_the_request_says_so(proofs: Proofs) -> None:
    (judged,) = proofs.said("repaired", OutcomeJudged)
    (asked,) = proofs.said("repaired", ProofRequested)
    assert judged.prove
    assert (asked.intervention, asked.session) == (judged.proposal, proofs.sessions["proof"])
    state = proofs.state("proof")
    assert (state.kind.name, state.state) == ("proof", "completed")
    assert state.genesis.parent == proofs.sessions["repaired"]


async def test_with_several_seeds_the_effect_has_an_interval_and_the_first_pair_stays_what_it_is(
    proofs: Proofs, tmp_path: Path
) -> None:
    (alone,) = proofs.said("proof", InterventionProven)
    async with crew(tmp_path, TRAINING) as made:
        repaired = await made.commands.submit(read_request(DIVERGING | {"diagnosis": {"mode": "fix"}}).resolved())
        await until_ended(made, repaired)
        proof = (await made.commands.verbs["prove"]({"session": repaired, "seeds": 3}))["session"]
        ended = await until_ended(made, proof, 120)
        forked = ProofState.of(ended).forked
        assert forked is not None
        seeds = [
            made.tail.history(one).state.request["reproducibility"]["seed"] for one in (forked.with_it, *forked.more)
        ]
    shown = ended.outcome
    assert isinstance(shown, InterventionProven)
    assert seeds == [42, 43, 43, 44, 44]
    assert (shown.with_value, shown.without_value) == (alone.with_value, alone.without_value)
    assert shown.seeds == 3
    low, effect, high = (math.nan if one is None else one for one in (shown.low, shown.effect, shown.high))
    assert low <= effect <= high
    assert shown.verdict == ("better" if low > 0 else "no difference")


def test_both_forks_begin_in_the_bits_in_which_the_intervention_took_effect(proofs: Proofs) -> None:
    (_, applied) = proofs.state("repaired").training.applied[0]
    one, other = (proofs.state(name) for name in ("with", "without"))
    assert one.fork.step == other.fork.step == applied.step
    assert one.fork.weights_digest == other.fork.weights_digest
    assert (one.fork.segment, other.fork.segment) == (applied.segment, applied.segment - 1)
    assert one.fork.changes == [{"step": applied.step, **applied.changes}]
    assert other.fork.changes == []
    assert one.genesis.parent == other.genesis.parent == proofs.sessions["proof"]
    assert one.kind is other.kind is TRIAL
    assert one.request["diagnosis"] == {"auto_fix": False, "prove": False}
    assert one.fork.sealed, "the parent was waited for"


def test_the_proof_says_who_did_better_and_that_the_parents_windows_came_out_again(proofs: Proofs) -> None:
    (shown,) = proofs.said("proof", InterventionProven)
    assert shown.verdict == "better"
    assert isinstance(proofs.state("with").outcome, TrainingCompleted)
    assert shown.differing == 0
    assert shown.superseded > 0
    assert shown.reproduced > shown.superseded, "those of the repaired path came out again, too"
    assert shown.parted == shown.step + 2, "the first step has the same loss, and moves otherwise"


def test_the_superseded_windows_are_those_of_the_fork_without_it_bit_for_bit(proofs: Proofs) -> None:
    state = proofs.state("repaired")
    gone = [one for one in proofs.said("repaired", WindowRecorded) if not state.training.on_path(one.segment, one.last)]
    again = {(one.segment, one.first): one for one in proofs.said("without", WindowRecorded)}
    assert gone
    for one in gone:
        assert again[one.segment, one.first].model_dump_json() == one.model_dump_json()


def test_the_same_proof_is_not_begun_twice(proofs: Proofs) -> None:
    assert proofs.sessions["asked again"] == proofs.sessions["proof"]
    assert len(proofs.said("proof", ProofForked)) == 1
    forks = [one for one in Summaries(proofs.home).sessions() if one["fork"]]
    assert len(forks) == 2


def test_proof_and_forks_are_sealed_and_their_logs_hold(proofs: Proofs) -> None:
    blobs = DirectoryBlobs(proofs.home.blobs)
    for name in ("repaired", "proof", "with", "without"):
        assert proofs.state(name).sealed is not None
        assert audit.check_log(Archive(proofs.home), proofs.sessions[name], blobs).divergences == ()


def test_proofs_of_nothing_are_refused(proofs: Proofs) -> None:
    assert "no intervention took effect" in str(proofs.errors["nothing applied"])
    assert "1 took effect" in str(proofs.errors["no such number"])
    assert isinstance(proofs.errors["under a session that is no proof"], Refused)


def changed(history: SessionLog, outcome: str = "", **values: list[float]) -> SessionLog:
    """A history whose evaluations have other values, or that did not complete."""
    kept = [fact for fact in history.facts if not (outcome and isinstance(fact.event, TrainingCompleted))]
    numbers = iter(values.get("val_loss", []))
    made = SessionLog(history.id)
    made.add(
        [
            fact._replace(event=fact.event.model_copy(update={"values": {"val_loss": next(numbers, 9.0)}}))
            if fact.name == "control.evaluated" and values
            else fact
            for fact in kept
        ]
    )
    return made


@pytest.mark.parametrize(
    ("ours", "theirs", "verdict"),
    [
        ([0.5, 0.4], [0.5, 0.6], "better"),
        ([0.5, 0.6], [0.5, 0.4], "worse"),
        ([0.5, 0.4], [0.4, 0.7], "no difference"),
        ([float("nan")] * 20, [0.4], "worse"),
        ([0.4], [float("inf")] * 20, "better"),
        ([float("nan")] * 20, [float("nan")] * 20, "no difference"),
    ],
)
def test_the_best_value_decides_among_those_that_completed(
    proofs: Proofs, ours: list[float], theirs: list[float], verdict: str
) -> None:
    whole = proofs.history("with")
    assert judged(proofs, changed(whole, val_loss=ours), changed(whole, val_loss=theirs)).verdict == verdict


def test_who_failed_has_lost_against_who_completed(proofs: Proofs) -> None:
    whole = proofs.history("with")
    failed = changed(whole, "failed", val_loss=[0.01])
    assert judged(proofs, whole, failed).verdict == "better"
    assert judged(proofs, failed, whole).verdict == "worse"


def test_a_window_that_does_not_come_out_again_is_told(proofs: Proofs) -> None:
    other = SessionLog(proofs.sessions["without"])
    for fact in proofs.history("without").facts:
        lie = (
            fact.event.model_copy(update={"finite": not fact.event.finite}) if fact.name == "window.recorded" else None
        )
        other.add([fact._replace(event=lie) if lie else fact])
    found = judged(proofs, proofs.history("with"), other)
    assert found.differing > 0
    assert found.superseded == 0


def judged(proofs: Proofs, with_it: SessionLog, without_it: SessionLog) -> InterventionProven:
    (_, applied) = proofs.state("repaired").training.applied[0]
    (forked,) = proofs.said("proof", ProofForked)
    return proven(proofs.history("repaired"), applied, forked, with_it, without_it)


async def test_a_cancelled_proof_ends_its_forks_and_itself(tmp_path: Path) -> None:
    request = small_request(training={"epochs": 2000, "batch_size": 64}, early_stopping={"enabled": False})
    async with crew(tmp_path, TRAINING) as made:
        session = await made.commands.submit(read_request(request | {"diagnosis": {"auto_fix": False}}).resolved())
        history = made.tail.history(session)
        proposal = InterventionProposed(
            rule="person", segment=1, rewind_to=None, changes={"learning_rate": 0.5}, reason="test", automatic=False
        )
        await until_said(made, session, "window.recorded")
        await made.ground.speak("diagnostician", session, proposal, history.facts[-1].id)
        applied = await until_said(made, session, "intervention.applied")
        assert isinstance(applied.event, InterventionApplied)
        async with asyncio.timeout(30):
            while history.state.step < applied.event.step + 100:
                await history.grown(history.size)
        await made.commands.verbs["cancel"]({"session": session})
        await until_ended(made, session)
        proof = (await made.commands.verbs["prove"]({"session": session}))["session"]
        forked = (await until_said(made, proof, "proof.forked")).event
        await made.commands.verbs["cancel"]({"session": proof, "reason": "enough"})
        state = await until_ended(made, proof)
        assert isinstance(state.outcome, ProofFailed)
        assert state.state == "cancelled"
        for fork in (forked.with_it, forked.without_it):
            assert (await until_ended(made, fork)).state == "cancelled"
