"""Who decides about remedies: proposals wait for a person, lapse by an event, and are signed as any decision is."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from bus.blobs import DirectoryBlobs
from contracts.diagnostician import InterventionProposed
from contracts.errors import NotFound, Refused
from contracts.operator import ProposalApproved, SessionRequested
from contracts.request import read_request
from contracts.trainer import InterventionApplied, InterventionDeclined
from runtime.audit.log_check import check_log
from runtime.commands.askers import Asker
from runtime.home.home import Home
from runtime.host.swarm_node import SwarmNode
from runtime.log.archive import Archive
from tests.harness import crew, small_request, until_ended, until_said
from tests.runtime.commands.test_people import answer, person, signed, told

CREW = ("data_manager", "trainer", "checkpoint_keeper", "ledger", "diagnostician", "validator", "resource_monitor")
DIVERGING: dict[str, Any] = {
    "optimizer": {"type": "sgd", "learning_rate": 100.0},
    "training": {"epochs": 4, "batch_size": 64, "grad_clip": None},
}


async def submitted(made: SwarmNode, **changes: Any) -> str:
    return await made.commands.submit(read_request(small_request(**(DIVERGING | changes))).resolved())


async def waiting(made: SwarmNode, session: str) -> str:
    """The first proposal that waits for a person; empty when the session ends without one."""
    history = made.tail.history(session)
    async with asyncio.timeout(30):
        while history.state.outcome is None and not history.state.training.waiting_proposals():
            await history.grown(history.size)
    return next((id for id, _ in history.state.training.waiting_proposals()), "")


async def test_a_person_approves_what_training_goes_on_without_and_the_log_shows_who(tmp_path: Path) -> None:
    async with crew(tmp_path, CREW) as made:
        ann = await person(made, "ann", "ask", "decide")
        session = await submitted(made, diagnosis={"mode": "propose"})
        proposal, history = await waiting(made, session), made.tail.history(session)
        async with asyncio.timeout(30):
            # To the end of its plan, where it waits for who wanted to decide.
            while (
                history.state.step < (history.state.training.total_steps or 0)
                or history.state.training.diagnosed is None
            ):
                await history.grown(history.size)
        assert history.state.step == history.state.training.total_steps
        assert history.state.training.segments[1:] == (), "nothing is changed before somebody decides"
        assert "event" in await answer(
            made, *signed(ann, "decide", "approve", {"session": session, "proposal": proposal})
        )
        applied = (await until_said(made, session, "intervention.applied")).event
        while another := await waiting(made, session):
            await made.commands.verbs["reject"]({"session": session, "proposal": another, "reason": "no more"})
            await until_said(made, session, "intervention.declined")
        ended, root = await until_ended(made, session), made.tail.admission.root
    assert isinstance(applied, InterventionApplied)
    assert (applied.proposal, applied.reproducible, applied.segment) == (proposal, False, 2)
    assert ended.training.judged
    checked = check_log(Archive(Home(tmp_path), root=root), session, DirectoryBlobs(Home(tmp_path).blobs))
    assert (checked.verdict, checked.decisions) == ("pass", 1), checked.divergences


async def test_what_nobody_decides_lapses_by_an_event_and_what_a_person_rejects_is_declined_in_that_name(
    tmp_path: Path,
) -> None:
    async with crew(tmp_path, CREW) as made:
        lapsing = await submitted(made, diagnosis={"mode": "propose", "wait": 0.2}, name="lapsing")
        declined = (await until_said(made, lapsing, "intervention.declined")).event
        assert isinstance(declined, InterventionDeclined)
        assert declined.reason == "nobody decided within 0.2 s"
        ended = await until_ended(made, lapsing)
        assert ended.training.waiting_proposals() == ended.training.segments[1:] == ()
        healthy = await submitted(made, optimizer={"type": "adamw", "learning_rate": 1e-3}, training={"epochs": 40})
        window = await until_said(made, healthy, "window.recorded")
        proposal = InterventionProposed(
            rule="r", segment=1, rewind_to=None, changes={"learning_rate": 0.5}, reason="", automatic=False, waits=True
        )
        await made.ground.speak("diagnostician", healthy, proposal, window.id)
        asked = {"session": healthy, "proposal": await waiting(made, healthy), "reason": "not now"}
        await made.commands.verbs["reject"](asked)
        declined = (await until_said(made, healthy, "intervention.declined")).event
        assert isinstance(declined, InterventionDeclined)
        assert declined.reason == "owner rejected it: not now"
        with pytest.raises(Refused, match="was rejected by owner"):
            await made.commands.verbs["approve"](asked)
        await made.commands.verbs["cancel"]({"session": healthy})
        await until_ended(made, healthy)


async def test_an_approved_request_is_another_training_and_only_a_person_approves(tmp_path: Path) -> None:
    async with crew(tmp_path, ()) as made:
        session = await submitted(made)
        about = {"segment": 1, "rewind_to": None, "changes": {}, "reason": "", "automatic": False}
        larger = InterventionProposed(rule="r", **about, remedy="new_seed", waits=True, set={"reproducibility.seed": 7})
        at_once = InterventionProposed(rule="r", **about)
        proposals = [await made.ground.speak("diagnostician", session, one, "") for one in (larger, at_once)]
        del proposals
        known = [id for id, _ in made.tail.history(session).state.training.proposals]
        asked = {"session": session, "proposal": known[0]}
        for role in ("diagnostician", "trainer"):
            with pytest.raises(Refused, match="is an agent"):
                await made.commands.carry_out("approve", asked, Asker(role, ("ask", "decide")))
        with pytest.raises(Refused, match="needs the right `ask`"):
            await made.commands.carry_out("approve", asked, Asker("person_d", ("decide",)))
        with pytest.raises(NotFound, match="has no proposal 'x'"):
            await made.commands.verbs["approve"](asked | {"proposal": "x"})
        with pytest.raises(Refused, match="does not wait for a person"):
            await made.commands.verbs["approve"](asked | {"proposal": known[1]})
        slower = {"by": "r", "segment": 2, "step": 0, "changes": {"learning_rate": 0.5}, "reproducible": True}
        await made.ground.speak("trainer", session, InterventionApplied(proposal="", **slower), "")
        ann = await person(made, "ann", "ask", "decide")
        begun = (await answer(made, *signed(ann, "decide", "approve", asked)))["begun"]
        assert "was approved by person_ann" in await told(made, *signed(ann, "decide", "approve", asked))
        approved = made.tail.history(session).facts[-1].event
        assert isinstance(approved, ProposalApproved)
        assert (approved.asked_by, approved.session) == ("person_ann", begun)
        genesis = made.tail.history(begun).facts[0].event
        assert isinstance(genesis, SessionRequested)
        before = made.tail.history(session).state.request
        assert genesis.request == before | {
            "reproducibility": before["reproducibility"] | {"seed": 7},
            "optimizer": before["optimizer"] | {"learning_rate": before["optimizer"]["learning_rate"] / 2},
        }
        assert made.tail.history(session).state.training.open_proposals() == (
            (known[1], made.tail.history(session).state.training.proposals[1][1]),
        )
