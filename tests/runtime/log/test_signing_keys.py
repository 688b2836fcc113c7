"""Keys come and go while a swarm works: what was said stays, what comes after an end is void, and nobody stops."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest

from bus import subjects
from bus.blobs import DirectoryBlobs
from bus.chain import Draft, compose
from bus.decode import Reason
from bus.keys import KeyStore
from bus.memory import MemoryBus
from bus.port import Record
from contracts.diagnostician import DiagnosisReached
from contracts.envelope import timestamp
from contracts.errors import InvalidInput, NotFound, NotVerified, Refused
from contracts.ids import new_uuid
from contracts.request import read_request
from contracts.roles import ROOT, SIGNING
from contracts.trainer import TrainingCompleted, TrainingFailed
from runtime import audit
from runtime.home.home import Home
from runtime.host.swarm_node import SwarmNode
from runtime.log.archive import Archive
from runtime.replay.verdict import Verdict
from tests.harness import crew, small_request, until_ended, until_said

TRAINING = ("data_manager", "trainer", "checkpoint_keeper", "ledger", "diagnostician", "resource_monitor")


class Overtaken(MemoryBus):
    """A bus on which something else is stored just before an append to a lane that was composed already."""

    def __init__(self) -> None:
        super().__init__()
        self.before: dict[str, Callable[[], Awaitable[object]]] = {}

    async def append(self, records: Sequence[Record], *, lane: str, after: int) -> int:
        name = subjects.parse(records[-1].subject).name
        if name in self.before:
            await self.before.pop(name)()
        return await super().append(records, lane=lane, after=after)


def keys_of(made: SwarmNode) -> dict[str, str]:
    ring = made.tail.admission.keyring()
    return {role: key.id for role in SIGNING if (key := ring.current(role))}


def judged(home: Path, session: str) -> Verdict:
    place = Home(home)
    return audit.check_log(Archive(place), session, DirectoryBlobs(place.blobs))


async def test_every_role_goes_on_with_a_new_key_in_the_middle_of_a_session_and_it_audits(tmp_path: Path) -> None:
    async with crew(tmp_path, TRAINING) as made:
        before = keys_of(made)
        session = await made.commands.submit(read_request(small_request()).resolved(), request_id="r1")
        await until_said(made, session, "checkpoint.written")
        for role in SIGNING:
            answer = await made.commands.verbs["rotate"]({"role": role})
            assert (answer["role"], answer["old"]) == (role, before[role])
        state = await until_ended(made, session)
        assert isinstance(state.outcome, TrainingCompleted), state.outcome
        assert not set(before.values()) & set(keys_of(made).values())
        # What was in flight under an old key is void, and was said again.
        assert {void.reason for void in made.tail.voids} <= {Reason.KEY, Reason.UNSIGNED}
        assert KeyStore(tmp_path / "keys").awaiting() == ()
        lines = (await made.commands.verbs["keys"]({}))["keys"]
        assert [one["ended"] for one in lines if not one["in_force"]] == ["rotated"] * len(SIGNING)
        assert all(one["since"] < one["until"] for one in lines if not one["in_force"])
    found = judged(tmp_path, session)
    assert found.verdict == "pass", found.divergences


@pytest.mark.parametrize(("lane", "word"), [("diagnostician", "diagnosis.reached"), ("ledger", "session.sealed")])
async def test_what_is_in_flight_when_its_key_ends_is_said_again_under_the_new_one(
    tmp_path: Path, lane: str, word: str
) -> None:
    bus = Overtaken()
    async with crew(tmp_path, ("ledger",), bus=bus, waive_after_seconds=0.1) as made:
        session = await made.commands.submit({"name": "said"})
        bus.before[word] = lambda: made.commands.keys.rotate(lane)
        reached = DiagnosisReached(segment=1, step=5)
        await made.writer("diagnostician").say(session, [reached])
        await made.writer("trainer").say(session, [TrainingFailed(segment=1, step=0, code="failed", message="no")])
        await until_ended(made, session, 20)
        assert [void.reason for void in made.tail.voids] == [Reason.KEY]
        assert [fact.name for fact in made.tail.history(session).facts if fact.lane == lane].count(word) == 1
    found = judged(tmp_path, session)
    assert found.verdict == "pass", found.divergences


async def test_a_revoked_key_signs_nothing_more_what_it_signed_stays_and_its_role_goes_on(tmp_path: Path) -> None:
    async with crew(tmp_path, ()) as made:
        session = await made.commands.submit({"name": "said"})
        stolen, writer = made.keys["diagnostician"], made.writer("diagnostician")
        await writer.say(session, [DiagnosisReached(segment=1, step=5)])
        await made.commands.verbs["revoke"]({"key": stolen.key_id[:8], "reason": "it was stolen"})
        head = made.tail.admission.head(session, "diagnostician")
        forged = compose(
            [Draft(DiagnosisReached(segment=1, step=6), str(new_uuid()))],
            session=session, lane="diagnostician", head=head, signer=stolen, source="/thief", time=timestamp(),
        )  # fmt: skip
        seq = await made.bus.append(forged, lane=subjects.lane(session, "diagnostician"), after=head.stored)
        await made.tail.reached(seq)
        assert [(void.seq, void.reason) for void in made.tail.voids] == [(seq, Reason.KEY)]
        await writer.say(session, [DiagnosisReached(segment=1, step=7)])
        steps = [fact.event.step for fact in made.tail.history(session).facts if fact.lane == "diagnostician"]
        assert steps == [5, 7]
        (ended,) = [one for one in (await made.commands.verbs["keys"]({}))["keys"] if one["key"] == stolen.key_id]
        assert ended["ended"] == "revoked: it was stolen"


async def test_a_process_that_has_not_the_new_key_is_told_so_in_a_sentence(tmp_path: Path) -> None:
    async with crew(tmp_path, ()) as made:
        session = await made.commands.submit({"name": "said"})
        made.keys._find = lambda role, public: None
        await made.commands.keys.rotate("validator")
        with pytest.raises(NotVerified, match="stored and not admitted") as refused:
            await made.writer("validator").say(session, [DiagnosisReached(segment=1, step=5)])
        assert "start the agent again where the new key of its role is" in refused.value.cure


@pytest.mark.parametrize("moment", ["before the log knows", "after the log knows"])
async def test_a_rotation_that_was_interrupted_is_carried_out_at_the_next_start(tmp_path: Path, moment: str) -> None:
    bus = MemoryBus()
    async with crew(tmp_path, (), bus=bus) as made:
        old = made.keys["validator"].key_id
        if moment == "after the log knows":
            made.commands.keys._store.promote = lambda role: None  # type: ignore[method-assign]
            await made.commands.keys.rotate("validator")
    new = KeyStore(tmp_path / "keys").prepare("validator").key_id
    for _ in range(2):
        async with crew(tmp_path, (), bus=bus) as made:
            assert made.keys["validator"].key_id == keys_of(made)["validator"] == new != old
            session = await made.commands.submit({"name": "said"})
            await made.writer("validator").say(session, [DiagnosisReached(segment=1, step=5)])
            assert not made.tail.voids
            assert KeyStore(tmp_path / "keys").awaiting() == ()


async def test_a_key_that_is_lost_is_missed_at_the_start_and_a_rotation_replaces_it(tmp_path: Path) -> None:
    bus, store = MemoryBus(), KeyStore(tmp_path / "keys")
    async with crew(tmp_path, (), bus=bus) as made:
        old = made.keys["trainer"].key_id
    store.forget("trainer")
    with pytest.RaisesGroup(Refused) as raised:
        async with crew(tmp_path, (), bus=bus):
            pass
    assert "swarm keys rotate trainer" in raised.value.exceptions[0].cure
    store.prepare("trainer")
    async with crew(tmp_path, (), bus=bus) as made:
        assert made.keys["trainer"].key_id == keys_of(made)["trainer"] != old


async def test_what_cannot_be_ended_is_refused_with_the_reason(tmp_path: Path) -> None:
    async with crew(tmp_path, ()) as made:
        verbs = made.commands.verbs
        for verb, body in (("rotate", {"role": ROOT}), ("revoke", {"key": ROOT, "reason": "old"})):
            with pytest.raises(Refused, match="the root key stands"):
                await verbs[verb](body)
        with pytest.raises(NotFound, match="'cook'"):
            await verbs["rotate"]({"role": "cook"})
        with pytest.raises(InvalidInput, match="needs a reason"):
            await verbs["revoke"]({"key": "trainer"})
        ended = (await verbs["rotate"]({"role": "trainer"}))["old"]
        with pytest.raises(Refused, match="has ended already"):
            await verbs["revoke"]({"key": ended, "reason": "old"})
        made.keys._held.pop(ROOT)
        with pytest.raises(Refused, match="does not hold the root key"):
            await verbs["rotate"]({"role": "trainer"})
