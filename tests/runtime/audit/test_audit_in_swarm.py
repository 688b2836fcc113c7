"""An audit in a swarm is a session: shared by its trainers, carried on whoever dies, and it ends as one without."""

from __future__ import annotations

import asyncio
import shutil
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from bus.blobs import DirectoryBlobs
from bus.memory import MemoryBus
from contracts.errors import InvalidInput, NotFound, Refused
from contracts.request import read_request
from contracts.session import SessionState
from contracts.trainer import AuditCompleted, AuditDeclined, AuditFailed, SpanRepeated, SpanTaken, TrainingCompleted
from runtime import audit
from runtime.audit.log_check import make_bundle
from runtime.bundle import verify_bundle
from runtime.cli.exit_codes import session_exit_code
from runtime.home.workloads import Workloads, inspect_file
from runtime.host.swarm_node import SwarmNode
from runtime.jobs.children import Children
from runtime.log.archive import Archive
from runtime.node import presence
from runtime.replay.audit_plan import AuditOptions
from runtime.views.view import summary
from tests.harness import beside, crew, kill_child, small_request, until_ended, until_said
from tests.runtime.audit.court import Court, audited
from tests.runtime.audit.liars import AT

AUDITORS = ("trainer", "exporter", "ledger")
SILENCE = 3.0
"""Seconds after which a trainer that is not heard counts as gone; here they are heard more often than that."""
TRAINING = (*AUDITORS, "data_manager", "checkpoint_keeper", "validator", "diagnostician", "resource_monitor")


@pytest.fixture(autouse=True)
def _heard_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence, "BEAT", 0.2)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Court:
    """An honest session, two that are not, and one of a machine that is nowhere."""
    court = Court(tmp_path_factory.mktemp("court"))
    asyncio.run(_told(court))
    return court


async def _told(court: Court) -> None:
    children = Children()
    try:
        await court.hear(children, "a ", ["honest", "other_losses"])
        known = Workloads(court.home.root)
        known._write(known._added() | {"hiding": inspect_file(str(court.code["hiding"]))})
        await court.hear(children, "hiding ", ["honest"], model={"architecture": "workload", "workload": "hiding"})
        elsewhere = [one.event for one in court.facts[court.told["a honest"]] if one.lane == "trainer"]
        claim = elsewhere[0].model_copy(update={"fingerprint": "f" * 64, "families": {"gelu": "0"}})
        court.told["elsewhere"] = court.again(court.told["a honest"], [claim, *elsewhere[1:]])
    finally:
        await children.close()


@pytest.fixture
def bus(told: Court) -> MemoryBus:
    """A server that holds what the court has heard."""
    return MemoryBus(kept=told.stream)


@pytest.fixture
async def swarm(told: Court, bus: MemoryBus, tmp_path: Path) -> AsyncIterator[SwarmNode]:
    """One host of the home that the court has written, or rather of a copy."""
    async with crew(_copy(told, tmp_path), AUDITORS, bus=bus, takeover_after_seconds=SILENCE) as made:
        yield made


def _copy(told: Court, folder: Path) -> Path:
    return Path(shutil.copytree(told.home.root, folder / "home"))


async def asked(made: SwarmNode, session: str, mode: str = "full", **more: Any) -> str:
    return str((await made.commands.verbs["audit"]({"session": session, "mode": mode, **more}))["session"])


async def judged(made: SwarmNode, own: str) -> tuple[AuditCompleted, SessionState]:
    state = await until_ended(made, own)
    assert isinstance(state.outcome, AuditCompleted), state.outcome
    return state.outcome, state


def said(made: SwarmNode, own: str, kind: type[Any]) -> list[Any]:
    return [fact.event for fact in made.tail.history(own).facts if isinstance(fact.event, kind)]


def counted(made: SwarmNode, own: str, kind: type[Any]) -> set[int]:
    """How often each span stands under events of this kind."""
    return set(Counter(one.span for one in said(made, own, kind)).values())


def held_back(made: SwarmNode) -> asyncio.Semaphore:
    """Let the trainer of this process compute nothing until it is released, and then one span at a time."""
    turns = made.supervisors["trainer"].agent.turns = asyncio.Semaphore(0)  # type: ignore[attr-defined]
    return turns


async def test_two_trainers_compute_every_span_once_and_find_what_an_audit_without_a_swarm_finds(
    swarm: SwarmNode, told: Court
) -> None:
    session = told.told["a honest"]
    async with beside(swarm, ("trainer",), "other"):
        own = await asked(swarm, session)
        verdict, state = await judged(swarm, own)
    assert counted(swarm, own, SpanTaken) == counted(swarm, own, SpanRepeated) == {1}
    alone = await audited(swarm.home, session, AuditOptions("full", workers=2))
    assert verdict.found == alone.findings()
    assert verdict.verdict == "pass"
    assert verdict.found.spans_checked > 3
    assert state.genesis is not None
    sealed = Archive(swarm.home).read(session).history.state.sealed
    assert sealed is not None
    assert (state.genesis.parent, state.request["root"], state.request["size"]) == (session, sealed.root, sealed.size)
    assert (state.state, summary(state)["verdict"], state.step) == ("completed", "pass", verdict.found.steps_checked)
    assert not (swarm.home.root / "work" / own).exists()


async def test_what_was_audited_in_a_swarm_can_itself_be_audited(swarm: SwarmNode, told: Court) -> None:
    own = await asked(swarm, told.told["a honest"], "spot", segments=1, seed=3)
    verdict, _ = await judged(swarm, own)
    assert (verdict.found.seed, verdict.found.spans_checked) == (3, 1)
    archive, blobs = Archive(swarm.home), DirectoryBlobs(swarm.home.blobs)
    assert audit.check_log(archive, own, blobs).verdict == "pass"
    made = make_bundle(archive, own, blobs, swarm.home.root / "audit.zip")
    assert verify_bundle.findings(made.path, swarm.tail.admission.root)["verdict"] == "pass"
    again, _ = await judged(swarm, await asked(swarm, own, "log"))
    assert again.verdict == "pass"
    assert "spans_checked" in again.found.model_fields_set


async def test_a_lie_is_found_and_located_wherever_it_is_computed(swarm: SwarmNode, told: Court) -> None:
    own = await asked(swarm, told.told["a other_losses"], "bisect")
    verdict, state = await judged(swarm, own)
    assert (verdict.verdict, state.state) == ("fail", "completed")
    first, located = verdict.found.first_divergence, verdict.found.located
    assert first is not None
    assert located is not None
    assert (first.step, located.step) == (AT + 7, AT + 7)
    assert located.operator is None


async def test_where_every_trainer_computes_other_bits_the_verdict_is_not_comparable(
    swarm: SwarmNode, told: Court
) -> None:
    async with beside(swarm, ("trainer",), "other"):
        own = await asked(swarm, told.told["elsewhere"])
        verdict, state = await judged(swarm, own)
    assert verdict.verdict == "not-comparable"
    assert "family gelu" in verdict.found.differing
    assert session_exit_code(summary(state)) == 3
    assert not said(swarm, own, SpanTaken)


async def test_code_that_says_its_bytes_are_gone_is_left_to_others_and_never_passes(
    swarm: SwarmNode, told: Court
) -> None:
    always = told.home.root / "always"
    always.touch()
    try:
        own = await asked(swarm, told.told["hiding honest"])
        verdict, _ = await judged(swarm, own)
    finally:
        always.unlink()
    assert (verdict.verdict, verdict.found.spans_checked) == ("not-comparable", 0)
    assert "the bytes are gone" in verdict.found.differing[0]
    assert any("code of workload 'hiding'" in one for one in verdict.found.unchecked)


async def test_a_span_whose_code_failed_at_one_trainer_is_computed_by_another(swarm: SwarmNode, told: Court) -> None:
    (told.home.root / "once").touch()
    async with beside(swarm, ("trainer",), "other"):
        own = await asked(swarm, told.told["hiding honest"], "spot", segments=1, seed=1)
        verdict, _ = await judged(swarm, own)
    assert (verdict.verdict, verdict.found.spans_checked) == ("pass", 1), verdict.found
    assert len(said(swarm, own, AuditDeclined)) == 1
    assert len(said(swarm, own, SpanTaken)) == 2


async def test_a_trainer_that_has_not_the_log_leaves_the_audit_to_others(
    swarm: SwarmNode, told: Court, tmp_path: Path
) -> None:
    turns = held_back(swarm)
    async with beside(swarm, ("trainer",), "other", tmp_path / "elsewhere"):
        own = await asked(swarm, told.told["a honest"])
        declined = await until_said(swarm, own, "audit.declined")
        turns.release()
        verdict, _ = await judged(swarm, own)
    assert declined.event.incarnation.startswith("other/")
    assert verdict.verdict == "pass"
    taken = said(swarm, own, SpanTaken)
    assert not [one for one in taken if one.incarnation.startswith("other/")]


async def test_an_audit_goes_on_after_its_host_and_no_span_is_computed_twice(
    told: Court, bus: MemoryBus, tmp_path: Path
) -> None:
    home = _copy(told, tmp_path)
    async with crew(home, AUDITORS, bus=bus) as made:
        own = await asked(made, told.told["a honest"])
        await until_said(made, own, "span.repeated")
    async with crew(home, AUDITORS, bus=bus) as made:
        verdict, _ = await judged(made, own)
        assert counted(made, own, SpanRepeated) == {1}
    assert verdict.verdict == "pass"


async def test_a_span_of_a_trainer_that_fell_silent_is_taken_over(swarm: SwarmNode, told: Court) -> None:
    turns = held_back(swarm)
    async with beside(swarm, ("trainer",), "other"):
        own = await asked(swarm, told.told["a honest"])
        await until_said(swarm, own, "span.taken")
    turns.release()
    verdict, _ = await judged(swarm, own)
    assert verdict.verdict == "pass"
    takers = {one.incarnation.partition("/")[0] for one in said(swarm, own, SpanTaken) if one.instead_of is None}
    assert "other" in takers
    assert counted(swarm, own, SpanRepeated) == {1}


async def test_a_child_that_is_killed_is_replaced(swarm: SwarmNode, told: Court) -> None:
    own = await asked(swarm, told.told["a honest"])
    await until_said(swarm, own, "span.taken")
    await kill_child(swarm, "audit")
    verdict, _ = await judged(swarm, own)
    assert verdict.verdict == "pass"
    assert counted(swarm, own, SpanRepeated) == {1}


async def test_a_cancelled_audit_ends_without_a_verdict(swarm: SwarmNode, told: Court) -> None:
    own = await asked(swarm, told.told["a honest"])
    with pytest.raises(Refused, match="which heeds no pause"):
        await swarm.commands.verbs["pause"]({"session": own})
    await swarm.commands.verbs["cancel"]({"session": own})
    state = await until_ended(swarm, own)
    assert isinstance(state.outcome, AuditFailed)
    assert (state.state, summary(state)["verdict"]) == ("cancelled", None)


async def test_what_cannot_be_audited_is_refused_with_the_reason(swarm: SwarmNode, told: Court) -> None:
    session = told.told["a honest"]
    for wrong in ({"mode": "loud"}, {"segments": 0}, {"seed": -1}, {"seed": "x"}):
        with pytest.raises(InvalidInput) as refused:
            await asked(swarm, session, **wrong)
        assert refused.value.path == next(iter(wrong))
    with pytest.raises(NotFound):
        await asked(swarm, "00-nobody")


async def test_exports_are_made_again_by_the_exporter_and_a_running_session_is_audited_as_far_as_it_is_signed(
    tmp_path: Path,
) -> None:
    async with crew(tmp_path, TRAINING, ledger_every_seconds=0.2) as made:
        request = small_request(export={"formats": ["safetensors"]})
        done = await made.commands.submit(read_request(request).resolved(), request_id="r1")
        assert isinstance((await until_ended(made, done)).outcome, TrainingCompleted)
        verdict, _ = await judged(made, await asked(made, done))
        assert verdict.verdict == "pass", verdict.found
        assert verdict.found.exports_checked == 1

        long = small_request(training={"epochs": 10000, "batch_size": 64})
        running = await made.commands.submit(read_request(long).resolved(), request_id="r2")
        with pytest.raises(NotFound, match="signed nothing"):
            await asked(made, running)
        history = made.tail.history(running)
        await until_said(made, running, "checkpoint.stored")
        while not any(fact.name == "ledger.checkpointed" and fact.event.size > 20 for fact in history.facts):
            await history.grown(history.size)
        verdict, state = await judged(made, await asked(made, running))
        assert verdict.verdict == "pass", verdict.found
        assert any(f"event {state.request['size']}" in told for told in verdict.found.unchecked)
        assert history.state.outcome is None, "it goes on"
        await made.commands.verbs["cancel"]({"session": running})
        await until_ended(made, running)
