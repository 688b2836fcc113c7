"""A session that is open while the software is upgraded goes on under the rules that its first fact names."""

from __future__ import annotations

from pathlib import Path

import orjson

from bus import subjects
from bus.blobs import DirectoryBlobs
from bus.chain import Draft, Head, compose
from bus.keys import HEADER
from bus.memory import MemoryBus
from bus.port import Record
from contracts.ids import new_uuid, session_id
from contracts.operator import SessionRequested
from contracts.request import read_request
from contracts.roles import BUILT_IN, DESK
from runtime import audit
from runtime.audit.log_check import make_bundle
from runtime.bundle import verify_bundle
from runtime.home.home import Home
from runtime.host.swarm_node import SwarmNode
from runtime.log.archive import Archive
from runtime.log.lane_writer import Provenance
from tests.fixtures.make_homes import OddTold, guest
from tests.harness import crew, small_request, until_ended, until_said
from tests.runtime.recorded_home import TIME


async def test_a_session_that_is_open_during_an_upgrade_goes_on_ends_and_passes_in_both_programs(
    tmp_path: Path,
) -> None:
    home, bus = Home(tmp_path / "home"), MemoryBus()
    async with crew(home.root, ("data_manager",), bus=bus) as before:
        session = await begun_before(before)
        await until_said(before, session, "dataset.prepared")
    async with crew(home.root, BUILT_IN, bus=bus) as made:
        await said_before(made, session)
        state = await until_ended(made, session)
        assert (state.state, made.tail.admission.rules(session)) == ("completed", 1)
        root = made.tail.admission.root
    archive, blobs = Archive(home), DirectoryBlobs(home.blobs)
    told = [(fact.lane, fact.envelope.dataschema) for fact in archive.read(session).history.facts]
    assert told[0] == ("operator", "session.requested/2")
    assert ("guest_ant", OddTold.schema_id) in told
    found = audit.check_log(archive, session, blobs)
    assert (found.verdict, found.events, found.sealed is not None) == ("pass", len(told), True)
    path = make_bundle(archive, session, blobs, tmp_path / "b.zip", wanted=("checkpoints", "dataset")).path
    verdicts = [audit.check_bundle(path, root=root).as_json(), verify_bundle.findings(path, root)]
    assert [one["verdict"] for one in verdicts] == ["pass", "pass"]
    assert verdicts[0]["sealed"] == verdicts[1]["sealed"] == found.sealed


async def begun_before(made: SwarmNode) -> str:
    """A training whose genesis is what software said that knew no version of the rules."""
    session, signer = session_id(new_uuid()), made.keys[DESK]
    request = read_request(small_request(training={"epochs": 2, "batch_size": 64})).resolved()
    head = made.tail.admission.keyring().head
    genesis = SessionRequested(kind="training", request=request, keyring=head, asked_by="before", rules=1)
    about = {"session": session, "lane": "operator", "signer": signer, "source": "/before", "time": TIME}
    (record,) = compose([Draft(genesis, str(new_uuid()))], head=Head(), **about)
    body = orjson.loads(record.body)
    body["dataschema"] = f"{SessionRequested.wire}/2"
    del body["data"]["rules"]
    raw = orjson.dumps(body)
    old = Record(record.subject, raw, {HEADER: signer.sign(raw)})
    await made.bus.append([old], lane=subjects.lane(session, "operator"), after=0)
    return session


async def said_before(made: SwarmNode, session: str) -> None:
    """A guest's word that rules 1 admit and rules 2 do not."""
    genesis = await until_said(made, session, SessionRequested.wire)
    async with guest(made, "guest_ant") as speaker:
        await speaker.tail.reached(genesis.seq)
        told = [OddTold(value=float("nan"))]
        await speaker.writer("guest_ant").say(session, told, Provenance(genesis.id, genesis.id))
