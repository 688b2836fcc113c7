"""What a writer promises: every event it was given is in the log once, whatever became of the acknowledgement."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from bus.memory import MemoryBus
from contracts.diagnostician import DiagnosisReached
from contracts.errors import Fenced, NotVerified
from contracts.ids import new_uuid, session_id
from contracts.operator import CancelRequested, SessionRequested
from contracts.trainer import TrainingPaused
from runtime.host.swarm_node import SwarmNode
from runtime.log.lane_writer import LaneWriter, Provenance
from tests.harness import claim, crew


@asynccontextmanager
async def swarm(home: Path, bus: MemoryBus | None = None) -> AsyncIterator[tuple[SwarmNode, str]]:
    async with crew(home, (), bus=bus) as made:
        session = await made.commands.submit({"name": "said"}, request_id="one")
        yield made, session


def rival(made: SwarmNode, lane: str) -> LaneWriter:
    return LaneWriter(made.bus, made.tail, lane, lambda: made.keys[lane], "/swarm/rival")


async def test_an_event_is_a_fact_when_say_returns(tmp_path: Path) -> None:
    async with swarm(tmp_path) as (made, session):
        (fact,) = await made.writer("diagnostician").say(session, [DiagnosisReached(segment=1, step=5)])
        assert made.tail.history(session).said["diagnostician", fact.id] is fact


async def test_a_batch_is_one_append_with_one_signature_on_its_last_event(tmp_path: Path) -> None:
    async with swarm(tmp_path) as (made, session):
        events = [DiagnosisReached(segment=1, step=step) for step in range(5)]
        facts = await made.writer("diagnostician").say(session, events)
        assert [fact.closes for fact in facts] == [False] * 4 + [True]
        assert [fact.envelope.laneseq for fact in facts] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("stored", [True, False])
async def test_a_lost_acknowledgement_leaves_the_event_in_the_log_once(tmp_path: Path, stored: bool) -> None:
    bus = MemoryBus()
    async with swarm(tmp_path, bus) as (made, session):
        bus.cut(stored=stored)
        await made.writer("diagnostician").say(session, [DiagnosisReached(segment=1, step=5)], Provenance("why"))
        said = [fact for fact in made.tail.history(session).facts if fact.lane == "diagnostician"]
        assert len(said) == 1
        assert not made.tail.voids


async def test_two_instances_of_a_role_answer_a_cause_once_between_them(tmp_path: Path) -> None:
    async with swarm(tmp_path) as (made, session):
        answer = [DiagnosisReached(segment=1, step=5)]
        mine, theirs = made.writer("diagnostician"), rival(made, "diagnostician")
        await asyncio.gather(*(one.say(session, answer, Provenance("why", answer="judge")) for one in (mine, theirs)))
        said = [fact for fact in made.tail.history(session).facts if fact.lane == "diagnostician"]
        assert len(said) == 1


async def test_two_instances_of_a_role_chain_behind_each_other(tmp_path: Path) -> None:
    async with swarm(tmp_path) as (made, session):
        writers = [made.writer("diagnostician"), rival(made, "diagnostician")]
        turns = [
            writers[n % 2].say(session, [DiagnosisReached(segment=1, step=n)], Provenance(f"why {n}"))
            for n in range(20)
        ]
        await asyncio.gather(*turns)
        said = [fact for fact in made.tail.history(session).facts if fact.lane == "diagnostician"]
        assert [fact.envelope.laneseq for fact in said] == list(range(1, 21))
        assert not made.tail.voids


async def test_a_fenced_trainer_cannot_append(tmp_path: Path) -> None:
    async with swarm(tmp_path) as (made, session):
        old, new = made.writer("trainer"), rival(made, "trainer")
        await old.say(session, [claim(1)], Provenance("ready", epoch=1))
        await new.say(session, [claim(2)], Provenance("ready", epoch=2))
        paused = TrainingPaused(by="drain", segment=1, step=0)
        with pytest.raises(Fenced, match="epoch 1"):
            await old.say(session, [paused], Provenance("ready", epoch=1))
        await new.say(session, [paused], Provenance("ready", epoch=2))


async def test_a_trainer_whose_lane_moved_on_without_a_claim_is_fenced_too(tmp_path: Path) -> None:
    """Somebody else speaks in its name: to compose anew behind that would make two writers of one lane."""
    async with swarm(tmp_path) as (made, session):
        mine, other = made.writer("trainer"), rival(made, "trainer")
        await mine.say(session, [claim(1)], Provenance("ready", epoch=1))
        paused = TrainingPaused(by="drain", segment=1, step=0)
        outcomes = await asyncio.gather(
            *(one.say(session, [paused], Provenance(why, epoch=1)) for why, one in (("a", mine), ("b", other))),
            return_exceptions=True,
        )
        assert sorted(isinstance(one, Fenced) for one in outcomes) == [False, True]
        assert made.tail.history(session).state.training.claim.epoch == 1


async def test_a_scribe_remembers_nothing_of_sessions_in_which_it_is_silent(tmp_path: Path) -> None:
    async with swarm(tmp_path) as (made, session):
        speaker = made.writer("diagnostician")
        await speaker.say(session, [DiagnosisReached(segment=1, step=5)])
        assert len(speaker._locks) == 0


async def test_of_two_trainers_that_claim_at_once_one_is_fenced(tmp_path: Path) -> None:
    async with swarm(tmp_path) as (made, session):
        rivals = [made.writer("trainer"), rival(made, "trainer")]
        outcomes = await asyncio.gather(
            *(one.say(session, [claim(1)], Provenance(f"ready {n}", epoch=1)) for n, one in enumerate(rivals)),
            return_exceptions=True,
        )
        assert sorted(isinstance(one, Fenced) for one in outcomes) == [False, True]


async def test_an_epoch_that_is_known_to_be_another_one_s_cannot_be_claimed(tmp_path: Path) -> None:
    async with swarm(tmp_path) as (made, session):
        owner, late = made.writer("trainer"), rival(made, "trainer")
        await owner.say(session, [claim(1)], Provenance("ready", epoch=1))
        with pytest.raises(Fenced, match="w1 holds 1"):
            await late.say(session, [claim(1)], Provenance("ready", epoch=1))
        await owner.say(session, [TrainingPaused(by="drain", segment=1, step=0)], Provenance("ready", epoch=1))


async def test_an_event_under_a_key_that_nobody_admitted_is_no_fact_and_says_so(tmp_path: Path) -> None:
    from bus.keys import new_signer

    async with swarm(tmp_path) as (made, session):
        key = new_signer("validator")
        stranger = LaneWriter(made.bus, made.tail, "validator", lambda: key, "/swarm/stranger")
        with pytest.raises(NotVerified, match="not admitted"):
            await stranger.say(session, [DiagnosisReached(segment=1, step=1)])
        assert [str(void.reason) for void in made.tail.voids] == ["key"]


async def test_the_same_request_id_names_the_same_session_and_another_request_is_refused(tmp_path: Path) -> None:
    from contracts.errors import Refused

    async with swarm(tmp_path) as (made, session):
        assert await made.commands.submit({"name": "said"}, request_id="one") == session
        with pytest.raises(Refused, match="another request"):
            await made.commands.submit({"name": "other"}, request_id="one")
        genesis = [fact for fact in made.tail.history(session).facts if isinstance(fact.event, SessionRequested)]
        assert len(genesis) == 1


async def test_wishes_of_a_session_that_is_not_there_are_not_found(tmp_path: Path) -> None:
    from contracts.errors import NotFound

    async with swarm(tmp_path) as (made, _):
        with pytest.raises(NotFound):
            await made.commands.verbs["cancel"]({"session": session_id(new_uuid())})
        assert not [f for h in made.tail.histories.values() for f in h.facts if isinstance(f.event, CancelRequested)]
