"""Guests of a real swarm: one does its work, strangers try everything, and the session ends well each time."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from bus import nkeys, subjects
from bus.chain import Draft, Head
from bus.jetstream import connect
from bus.keys import HEADER
from bus.port import Record
from contracts import ids
from contracts.common import HandlerFailed
from contracts.errors import NotFound, Refused, SwarmError
from contracts.trainer import TrainingFailed
from runtime.commands.client import SwarmClient
from runtime.home import settings
from runtime.node import roster
from tests.harness import small_request
from tests.runtime.strangers import FOOTPRINT, Place, RumourSpread, Stranger, forger, place, stranger

pytestmark = pytest.mark.timeout(180)

Line = dict[str, Any]


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with place(tmp_path_factory.mktemp("swarm")) as found:
        yield found


async def lines(swarm: SwarmClient, session: str) -> list[Line]:
    return [line async for line in swarm.events(session)]


async def voids(swarm: SwarmClient, lane: str) -> list[str]:
    """Why what stands in a guest's lane is no fact."""
    mark = f".guest.{lane.removeprefix('guest_')}."
    return [one["reason"] for one in (await swarm.command("dlq"))["voids"] if mark in one["subject"]]


async def ends_well(here: Place, swarm: SwarmClient, session: str) -> list[Line]:
    """The events of a session that completed, whose copy on disk verifies."""
    found = await swarm.wait(session, timeout=90)
    assert found["state"] == "completed", found
    assert await asyncio.to_thread(here.audited, session) == "pass"
    return await lines(swarm, session)


@contextlib.asynccontextmanager
async def attacked(here: Place, name: str) -> AsyncIterator[tuple[SwarmClient, Stranger, str]]:
    """A session that has just begun, and a stranger beside it."""
    async with here.swarm() as swarm, stranger(here, name) as evil:
        session = await swarm.submit(small_request())
        await evil.until(session, "session.requested")
        yield swarm, evil, session


def test_the_example_is_short() -> None:
    assert len(FOOTPRINT.read_text().splitlines()) < 25


async def test_a_guest_added_while_the_swarm_runs_is_recorded_chained_signed_and_sealed(here: Place) -> None:
    made = here.command("agent", "new", "footprint", "--from", str(FOOTPRINT))
    assert made["lane"] == "guest_footprint"
    assert Path(made["creds"]).stat().st_mode & 0o777 == 0o600
    with here.running(f"{FOOTPRINT}:Footprint"):
        async with here.swarm() as swarm:
            for _ in range(2):
                session = await swarm.submit(small_request())
                told = await ends_well(here, swarm, session)
                (own,) = [one for one in told if one["lane"] == "guest_footprint"]
                (heard,) = [one for one in told if one["name"] == "resources.summarised"]
                assert (own["name"], own["laneseq"], own["cause"]) == ("footprint.estimated", 1, heard["id"])
                assert own["understood"] is False
                assert set(own["data"]) == {"watt_hours", "grams_co2"}
                assert told[-1]["data"]["lanes"]["guest_footprint"] == own["digest"]


async def test_a_guest_and_a_role_elsewhere_go_on_with_new_keys_and_a_revoked_guest_is_turned_out(here: Place) -> None:
    made = here.command("agent", "new", "footprint", "--from", str(FOOTPRINT))
    with here.running(f"{FOOTPRINT}:Footprint"), here.running("validator"):
        async with here.swarm() as swarm:
            old = [here.command("keys", "rotate", one)["old"] for one in ("footprint", "validator", "ledger", "desk")]
            told = await ends_well(here, swarm, await swarm.submit(small_request()))
            said = {one["lane"] for one in told}
            assert {"guest_footprint", "validator"} <= said
            assert "next" not in json.loads(Path(made["creds"]).read_text())
    known = {one["key"]: one for one in here.command("keys")["keys"]}
    assert [known[one]["ended"] for one in old] == ["rotated"] * 4
    ended = here.command("keys", "revoke", "footprint", "--reason", "it has done its work")
    assert (ended["role"], ended["key"]) == ("guest_footprint", None)
    assert not Path(made["creds"]).exists()
    assert here.command("agent", "run", str(FOOTPRINT), code=4)["error"]["cure"].startswith("Admit it")


async def test_credentials_are_all_that_a_guest_needs(here: Place, tmp_path: Path) -> None:
    made = here.command("agent", "new", "footprint", "--from", str(FOOTPRINT))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    creds = Path(shutil.copy(made["creds"], elsewhere / "creds.json"))
    nowhere = {"SWARM_HOME": str(elsewhere / "none")}
    with here.running(str(FOOTPRINT), "--creds", str(creds), env=nowhere, cwd=elsewhere):
        async with here.swarm() as swarm:
            session = await swarm.submit(small_request())
            told = await ends_well(here, swarm, session)
    assert "footprint.estimated" in {one["name"] for one in told}
    assert [path.name for path in elsewhere.iterdir()] == ["creds.json"]


def test_credentials_that_others_can_read_are_refused(here: Place, tmp_path: Path) -> None:
    made = here.command("agent", "new", "footprint", "--from", str(FOOTPRINT))
    creds = Path(shutil.copy(made["creds"], tmp_path / "creds.json"))
    creds.chmod(0o644)
    refused = here.command("agent", "run", str(FOOTPRINT), "--creds", str(creds), code=6)
    assert "chmod 600" in refused["error"]["cure"]


async def test_what_a_guest_hears_can_be_changed_and_its_key_stays(here: Place) -> None:
    async with here.swarm() as swarm:
        first = await swarm.command("admit", name="moody", hears=["training.completed"])
        again = await swarm.command("admit", name="moody", hears=["training.failed", "training.completed"])
        same = await swarm.command("admit", name="moody", hears=["training.failed", "training.completed"])
    assert first["key"] == again["key"] == same["key"]
    (known,) = [one for one in here.command("agents")["agents"] if one["name"] == "moody"]
    assert known["hears"] == ["training.completed", "training.failed"]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"name": "trainer"}, "built-in role"),
        ({"name": "Footprint"}, "no name for an agent"),
        ({"name": "a.b"}, "no name for an agent"),
        ({"name": "x" * 40}, "no name for an agent"),
        ({"name": 7}, "not text"),
        ({"name": "ant", "hears": "everything"}, "not a list"),
        ({"name": "ant", "hears": ["swarm.>"]}, "no event name"),
    ],
)
async def test_who_may_not_be_admitted_is_told_why(here: Place, body: Line, says: str) -> None:
    async with here.swarm() as swarm:
        with pytest.raises(SwarmError, match=says):
            await swarm.command("admit", **body)


async def test_a_person_cancels_by_name_and_neither_more_nor_anybody_else_in_that_name(here: Place) -> None:
    made = here.command("person", "new", "ann", "--rights", "ask,decide")
    creds = made["creds"], str(here.home / "client.json")
    ann, client = (settings.load(home=str(here.home), creds=one) for one in creds)
    async with here.swarm() as swarm, stranger(here, "mimic") as evil:
        session = await swarm.submit(small_request(training={"epochs": 500, "batch_size": 64}))
        here.command("--as", "ann", "cancel", session[:12], "--reason", "enough")
        assert (await swarm.wait(session, timeout=60))["state"] == "cancelled"
        (wish,) = [one for one in await lines(swarm, session) if one["name"] == "cancel.requested"]
        assert wish["data"]["asked_by"] == "person_ann"
        for who in (ann, client):
            async with SwarmClient.connect(who) as other:
                with pytest.raises(Refused, match="needs the right `administer`"):
                    await other.command("person", name="bob", rights=["decide"])
        with pytest.raises(Refused, match="may not publish"):
            await evil.bus.ask(subjects.signed_command("person_ann", "decide", "cancel"), b"{}")
        await swarm.command("revoke", key="ann", reason="she left")
        with pytest.raises(NotFound, match="no credentials file"):
            async with SwarmClient.connect(ann):
                pass
    assert here.command("audit", session)["decisions"] == 1


async def test_a_stranger_cannot_publish_into_a_foreign_lane(here: Place) -> None:
    async with attacked(here, "mole") as (swarm, evil, session):
        for lane in ("trainer", "operator", "ledger", "validator", "guest_footprint"):
            records = evil.records(session, RumourSpread(), head=Head(), lane=lane)
            with pytest.raises(Refused, match="may not publish"):
                await evil.bus.append(records, lane=subjects.lane(session, lane), after=0)
        told = await ends_well(here, swarm, session)
    assert not [one for one in told if one["name"] == "rumour.spread"]


async def test_a_reply_subject_leads_into_no_lane(here: Place) -> None:
    async with attacked(here, "decoy") as (swarm, evil, session):
        before = (await swarm.command("dlq"))["voids"]
        for lane in ("trainer", "ledger", "guest_footprint", "guest_decoy"):
            target = subjects.fact(session, lane, "training.failed")
            for subject in ("STREAM.MSG.GET.EV_00", "STREAM.INFO.EV_00", "DIRECT.GET.EV_00"):
                await evil.shout(f"LOG.API.{subject}", b'{"seq":1}', reply=target)
            await evil.shout("LOG.API.CONSUMER.MSG.NEXT.EV_00.guest_decoy", b"1", reply=target)
            await evil.shout("$JS.ACK.EV_00.guest_decoy.1.1.1.1.0", b"+NXT", reply=target)
        await ends_well(here, swarm, session)
        assert (await swarm.command("dlq"))["voids"] == before


async def test_a_forged_chain_is_void_and_breaks_nobody_elses(here: Place) -> None:
    async with attacked(here, "forger") as (swarm, evil, session):
        await evil.say(session, RumourSpread(text="honest"))
        await evil.look()
        head = evil.head(session)
        for wrong in (
            Head(head.laneseq, "0" * 64),
            Head(head.laneseq, ids.sha256(b"another past")),
            Head(head.laneseq + 5, head.digest),
            Head(0, "0" * 64),
        ):
            for record in evil.records(session, RumourSpread(text="forged"), head=wrong):
                await evil.store(record)
        (record,) = evil.records(session, RumourSpread(), signer=forger(evil.lane))
        await evil.store(record)
        (record,) = evil.records(session, RumourSpread())
        await evil.store(Record(record.subject, record.body))
        await evil.say(session, RumourSpread(text="honest again"))
        told = await ends_well(here, swarm, session)
        assert await voids(swarm, evil.lane) == ["chain", "chain", "laneseq", "laneseq", "key", "unsigned"]
    assert [one["data"]["text"] for one in told if one["lane"] == evil.lane] == ["honest", "honest again"]


async def test_whoever_stole_a_guests_place_on_the_server_cannot_stop_it_from_answering(here: Place) -> None:
    """The thief holds the guest's NATS user and not its signing key: it fills the lane with messages, which takes the
    sequence numbers that the guest expects."""
    made = here.command("agent", "new", "footprint", "--from", str(FOOTPRINT))
    with here.running(str(FOOTPRINT)):
        creds = json.loads(Path(made["creds"]).read_text())
        async with (
            here.swarm() as swarm,
            connect(creds["url"], "guest_footprint", nkeys.from_seed(creds["seed"])) as bus,
        ):
            thief = Stranger(bus, "guest_footprint", forger("guest_footprint"), creds["root"])
            session = await swarm.submit(small_request())
            await thief.until(session, "session.requested")
            stealing = asyncio.create_task(_steal(thief, session))
            try:
                told = await ends_well(here, swarm, session)
            finally:
                stealing.cancel()
            assert len([one for one in told if one["name"] == "footprint.estimated"]) == 1
            assert "key" in await voids(swarm, "guest_footprint")


async def _steal(thief: Stranger, session: str) -> None:
    while True:
        await thief.look()
        for record in thief.records(session, RumourSpread(text="stolen")):
            await thief.store(record)
        await asyncio.sleep(0.02)


async def test_ids_that_roles_are_about_to_use_are_not_for_the_taking(here: Place) -> None:
    """Every id in a session follows from that of its genesis, so a stranger can say them all before anybody else."""
    async with here.swarm() as swarm, stranger(here, "thief") as evil:
        fresh = {"source": "digits", "split": {"train": 0.6, "val": 0.2, "test": 0.2, "stratify": True}}
        session = await swarm.submit(small_request(data=fresh))
        genesis = (await evil.until(session, "session.requested")).id
        while not any(fact.lane == evil.lane for fact in evil.facts):
            said = {fact.id for fact in evil.facts}
            foretold = dict.fromkeys(one for one in _foretold(session, genesis) if one not in said)
            await evil.say(session, *(Draft(RumourSpread(), one) for one in foretold))
            await evil.look()
        told = await ends_well(here, swarm, session)
    stolen = {one["id"] for one in told if one["lane"] == evil.lane}
    robbed = {one["lane"] for one in told if one["lane"] != evil.lane and one["id"] in stolen}
    assert robbed >= {"checkpoint_keeper", "validator", "resource_monitor"}


def _foretold(session: str, genesis: str) -> Iterator[str]:
    for prepared in _answers(session, "data_manager", genesis):
        yield prepared
        for written in (ids.event_id(session, "trainer", prepared, n) for n in range(60)):
            yield written
            yield from _answers(session, "resource_monitor", written)
            for stored in _answers(session, "checkpoint_keeper", written):
                yield stored
                yield from _answers(session, "validator", stored)
    yield from (ids.event_id(session, "ledger", genesis, n) for n in range(5))


def _answers(session: str, role: str, cause: str) -> Iterator[str]:
    """What a role's first answer to something would be called, by whichever of its handlers."""
    for handler in roster.load(role).handlers:
        yield ids.event_id(session, role, cause, f"{handler.name} 0")


async def test_an_id_that_was_said_cannot_be_said_again(here: Place) -> None:
    async with attacked(here, "parrot") as (swarm, evil, session):
        theirs = await evil.until(session, "dataset.prepared")
        await evil.say(session, Draft(RumourSpread(), "mine"))
        for identity in (theirs.id, "mine"):
            await evil.say(session, Draft(RumourSpread(), identity))
        told = await ends_well(here, swarm, session)
        assert await voids(swarm, evil.lane) == ["replayed", "replayed"]
    assert [one["id"] for one in told if one["lane"] == evil.lane] == ["mine"]


async def test_words_from_a_strangers_mouth_are_shown_and_not_believed(here: Place) -> None:
    async with attacked(here, "liar") as (swarm, evil, session):
        genesis = await evil.until(session, "session.requested")
        words = [
            TrainingFailed(segment=1, step=0, code="failed", message="it is over"),
            HandlerFailed(role="data_manager", handler="prepare", heard=genesis.id, error="no", attempts=3),
            HandlerFailed(role="liar", handler="prepare", heard=genesis.id, error="no", attempts=3),
        ]
        await evil.say(session, *words)
        told = await ends_well(here, swarm, session)
    lies = [one for one in told if one["lane"] == evil.lane]
    assert [one["name"] for one in lies] == ["training.failed", "handler.failed", "handler.failed"]
    assert not any(one["understood"] for one in lies)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("newer", {"dataschema": "window.recorded/99", "type": "io.stigmergy.guest_odd.window.recorded"}),
        ("huge", {"data": {"n": "BIG"}}),
        ("clock", {"time": "\x1b[2J not a time"}),
        ("cause", {"causationid": "x" * 10_000, "correlationid": ""}),
        ("list", {"data": [[1, 2], None]}),
    ],
)
async def test_odd_words_of_a_stranger_stop_neither_the_session_nor_who_looks_at_it(
    here: Place, name: str, changes: Line
) -> None:
    async with attacked(here, "odd") as (swarm, evil, session):
        (record,) = evil.records(session, RumourSpread())
        body = orjson.dumps(orjson.loads(record.body) | changes).replace(b'"BIG"', b"9" * 40)
        said = "window.recorded" if name == "newer" else "rumour.spread"
        odd = Record(subjects.fact(session, evil.lane, said), body, {HEADER: evil.signer.sign(body)})
        await evil.bus.append([odd], lane=subjects.lane(session, evil.lane), after=0)
        assert (await swarm.session(session))["session"] == session
        told = await ends_well(here, swarm, session)
        assert [one["name"] for one in told if one["lane"] == evil.lane] == [said]
    shown = here.command("show", session)
    assert 0 < shown["wall_s"] < 600


async def test_a_stranger_begins_no_session(here: Place) -> None:
    async with here.swarm() as swarm, stranger(here, "founder") as evil:
        made_up = ids.session_id(ids.new_uuid())
        await evil.say(made_up, RumourSpread())
        with pytest.raises(NotFound):
            await swarm.session(made_up)
        session = await swarm.submit(small_request())
        await ends_well(here, swarm, session)
        assert await voids(swarm, evil.lane) == ["unbegun"]
    assert not (here.home / "sessions" / made_up).exists()


async def test_a_stranger_makes_no_consumer_and_takes_no_wake_up_of_others(here: Place) -> None:
    async with attacked(here, "spy") as (swarm, evil, session):
        for subject in (
            "LOG.API.CONSUMER.CREATE.EV_00",
            "LOG.API.CONSUMER.CREATE.EV_00.validator",
            "LOG.API.CONSUMER.DURABLE.CREATE.EV_00.validator",
            "LOG.API.CONSUMER.DELETE.EV_00.validator",
            "LOG.API.CONSUMER.MSG.NEXT.EV_00.validator",
            "$JS.API.CONSUMER.CREATE.EV_00",
            "$JS.API.READER.EV_00",
            "LOG.API.READER.EV_00",
            "LOG.API.STREAM.PURGE.EV_00",
            "$JS.ACK.EV_00.validator.1.1.1.1.0",
            subjects.command("cancel"),
            subjects.heartbeat("trainer", "x"),
        ):
            with pytest.raises(Refused, match="may not publish"):
                await evil.bus._link.ask(subject, b"{}")
        await ends_well(here, swarm, session)


async def test_a_guest_that_floods_is_turned_out_and_the_session_ends_well(here: Place) -> None:
    async with attacked(here, "flood") as (swarm, evil, session):
        flooding = asyncio.create_task(_flood(evil, session))
        try:
            await ends_well(here, swarm, session)
            async with asyncio.timeout(60):
                refusal = await flooding
        finally:
            flooding.cancel()
        assert isinstance(refusal, SwarmError)
        async with asyncio.timeout(20):
            while (here.home / "keys" / "guests" / "flood.json").exists():
                await asyncio.sleep(0.05)
        again = await swarm.command("admit", name="flood", hears=[])
        assert again["key"] != evil.signer.key_id
    async with stranger(here, "flood") as back, here.swarm() as swarm:
        await back.look()
        session = await swarm.submit(small_request())
        await back.until(session, "session.requested")
        await back.say(session, RumourSpread(text="sorry"))
        told = await ends_well(here, swarm, session)
    assert [one["data"] for one in told if one["lane"] == back.lane] == [{"text": "sorry"}]


@pytest.mark.parametrize("beside", ["heartbeat", "letter"])
async def test_a_guest_that_floods_beside_the_log_is_turned_out_too(here: Place, beside: str) -> None:
    async with stranger(here, f"loud-{beside}") as evil:
        loud = subjects.heartbeat(evil.lane, "x") if beside == "heartbeat" else subjects.dead_letter(evil.lane)
        admitted = here.home / "keys" / "guests" / f"loud-{beside}.json"
        assert admitted.exists()
        async with asyncio.timeout(60):
            while admitted.exists():
                with contextlib.suppress(SwarmError):
                    await evil.shout(loud, b"x" * 65_536)
                await asyncio.sleep(0)


async def _flood(evil: Stranger, session: str) -> Exception:
    """Signed appends of 500 events, as fast as they go, until the server will not have it any more."""
    lane, head = subjects.lane(session, evil.lane), Head()
    while True:
        records = evil.records(session, *(RumourSpread(text="x" * 100) for _ in range(500)), head=head)
        try:
            seq = await evil.bus.append(records, lane=lane, after=head.stored)
        except SwarmError as error:
            return error
        head = Head(head.laneseq + len(records), ids.sha256(records[-1].body), seq, seq)
