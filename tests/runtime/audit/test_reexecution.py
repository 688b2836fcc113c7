"""A session audits `pass` by computing it again, whatever happened to it; one that lies does not."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from safetensors import safe_open

from bus.blobs import DirectoryBlobs
from contracts.diagnostician import InterventionProposed
from contracts.errors import NotVerified
from contracts.request import read_request
from contracts.trainer import TrainingClaimed, TrainingCompleted, WindowRecorded
from runtime import audit
from runtime.audit import recomputation
from runtime.audit.log_check import make_bundle
from runtime.cli.main import swarm
from runtime.engine.plain_kinds import levers
from runtime.home.home import Home
from runtime.host.swarm_node import SwarmNode
from runtime.jobs.children import Children
from runtime.log.archive import Archive, likely_machine
from runtime.replay import audit_subject
from runtime.replay.audit_plan import AuditOptions, draw_spans
from runtime.replay.audit_subject import AuditSubject, machine_of
from runtime.replay.jobs import Conditions, MachineIdentity
from runtime.replay.spans import session_spans
from runtime.replay.steps import rebuild_weights
from runtime.replay.verdict import ReplayVerdict, detection
from runtime.views.answer_pages import span_rows
from tests.harness import crew, kill_child, killed, small_request, until_ended, until_said
from tests.runtime.audit.court import CODE, Court, audited, material
from tests.runtime.audit.liars import AT, LIES, OF_CODE

TRAINING = ("data_manager", "trainer", "checkpoint_keeper", "ledger", "diagnostician", "exporter", "resource_monitor")


@pytest.fixture(scope="module")
def eventful(tmp_path_factory: pytest.TempPathFactory) -> tuple[Home, str]:
    """A session with a crash, a rewind, a learning-rate decision, an early stop and an export."""
    home = tmp_path_factory.mktemp("eventful")
    return Home(home), asyncio.run(_eventful(home))


async def _eventful(home: Path) -> str:
    request = small_request(
        training={"epochs": 200, "batch_size": 64},
        early_stopping={"enabled": True, "patience": 4, "metric": "val_loss", "min_delta": 0.002},
        export={"formats": ["safetensors"]},
        diagnosis={"auto_fix": False},
    )
    async with crew(home, TRAINING) as made:
        session = await made.commands.submit(read_request(request).resolved(), request_id="r1")
        await until_said(made, session, "checkpoint.written")
        await kill_child(made, "train")
        await _reached(made, session, 150)
        await _proposed(made, session, segment=1, rewind_to=50, changes={"learning_rate": 0.7})
        await _reached(made, session, 100)
        await _proposed(made, session, segment=2, rewind_to=None, changes={"learning_rate": 0.5})
        state = await until_ended(made, session)
        assert isinstance(state.outcome, TrainingCompleted), state.outcome
        assert state.outcome.stopped_early
        assert len(state.training.segments) == 3
        assert state.training.exports
    return session


async def _reached(made: SwarmNode, session: str, step: int) -> None:
    history = made.tail.history(session)
    async with asyncio.timeout(30):
        while history.state.step < step:
            await history.grown(history.size)


async def _proposed(made: SwarmNode, session: str, **about: Any) -> None:
    history = made.tail.history(session)
    proposal = InterventionProposed(rule="person", reason="test", automatic=False, **about)
    before = len(history.state.training.applied)
    await made.ground.speak("diagnostician", session, proposal, history.facts[-1].id)
    async with asyncio.timeout(30):
        while len(history.state.training.applied) == before:
            await history.grown(history.size)


async def test_an_eventful_session_passes_in_full(eventful: tuple[Home, str]) -> None:
    home, session = eventful
    found = await audited(home, session, AuditOptions("full", workers=2))
    assert found.verdict == "pass", found.as_json()
    assert found.spans_checked == found.spans_total > 3
    assert found.exports_checked == 1
    assert not list((home.root / "work" / "audits").iterdir()), "what was found on the way is not kept"


async def test_an_eventful_session_passes_by_lot_and_says_the_chances(eventful: tuple[Home, str]) -> None:
    home, session = eventful
    found = await audited(home, session, AuditOptions("spot", segments=2, seed=5, workers=2))
    assert found.verdict == "pass"
    assert (found.spans_checked, found.seed) == (2, 5)
    assert found.detection["0.1"] == pytest.approx(1 - 0.9**2)
    assert any("were not computed again" in told for told in found.unchecked)


PULLED: dict[str, Any] = {
    "learning_rate": 0.5,
    "grad_clip": 0.2,
    "skip_rows": [[3, 9], [40, 40]],
    "warmup": 20,
    "halve_batch": 2,
    "weight_decay": 0.1,
    "dropout": 0.4,
    "class_weights": "balanced",
    "stop": True,
}
"""Every lever, with a value that changes the training."""


@pytest.mark.long
async def test_a_session_in_which_every_lever_was_pulled_passes_in_full(tmp_path: Path) -> None:
    assert PULLED.keys() == levers.all.keys()
    request = small_request(
        training={"epochs": 2000, "batch_size": 64},
        early_stopping={"enabled": False},
        diagnosis={"mode": "observe"},
        checkpoints={"every_steps": 50},
    )
    async with crew(tmp_path, TRAINING) as made:
        session = await made.commands.submit(read_request(request).resolved(), request_id="r1")
        for number, (name, value) in enumerate(PULLED.items(), 1):
            # Every other one goes back, so that what it superseded is computed again as well.
            back = 50 if number % 2 and name != "stop" else None
            history = made.tail.history(session)
            async with asyncio.timeout(30):
                while (last := history.state.training.last_window) is None or last.segment != number or last.last < 60:
                    await history.grown(history.size)
            await _proposed(made, session, segment=number, rewind_to=back, changes={name: value})
        state = await until_ended(made, session)
        told = [fact.event for fact in made.tail.history(session).facts]
    assert isinstance(state.outcome, TrainingCompleted), state.outcome
    trained = {one.segment for one in told if isinstance(one, WindowRecorded)}
    assert trained == set(range(1, len(PULLED) + 1)), "something was trained under every lever but the end"
    assert [dict(one.changes) for one in state.training.segments[1:]] == [{name: PULLED[name]} for name in PULLED]
    found = await audited(Home(tmp_path), session, AuditOptions("full", workers=2))
    assert found.verdict == "pass", found.as_json()
    assert found.spans_checked == found.spans_total


async def test_rows_that_follow_evaluations_come_again_after_a_kill_and_in_a_full_audit(tmp_path: Path) -> None:
    """A curriculum of which every evaluation begins a new stage: who forgets one takes other rows from there on."""
    request = small_request(
        sampler={"type": "curriculum", "column": "y", "start": 0.2, "widen": 0.2, "patience": 0, "min_delta": 1e6},
        training={"epochs": 8, "batch_size": 64},
        early_stopping={"enabled": False},
        diagnosis={"auto_fix": False},
    )
    wanted, ends = read_request(request).resolved(), list[tuple[str, list[str]]]()
    async with crew(tmp_path, TRAINING) as made:
        for number in range(2):
            session = await made.commands.submit(wanted, request_id=f"r{number}")
            if number:
                await _reached(made, session, 110)
                await kill_child(made, "train")
            state = await until_ended(made, session)
            assert isinstance(state.outcome, TrainingCompleted), state.outcome
            windows = [fact.event for fact in made.tail.history(session).facts if fact.name == "window.recorded"]
            ends.append((state.outcome.state_root, [one.index_digest for one in windows]))
        assert ends[0] == ends[1]
        assert killed(made, session) == 1
    found = await audited(Home(tmp_path), session, AuditOptions("full", workers=2))
    assert found.verdict == "pass", found.as_json()
    assert found.spans_checked == found.spans_total > 2


def test_spans_cover_every_record_also_those_that_a_rewind_superseded(eventful: tuple[Home, str]) -> None:
    home, session = eventful
    history = Archive(home).read(session).history
    found = session_spans(history.facts, history.state, lambda _: True)
    told = {one.position for span in found.spans for one in span.records}
    names = ("window.recorded", "control.evaluated", "checkpoint.written")
    assert told == {fact.position for fact in history.facts if fact.name in names}
    assert not found.strays


def test_spans_whose_checkpoints_are_gone_begin_earlier(eventful: tuple[Home, str]) -> None:
    home, session = eventful
    history = Archive(home).read(session).history
    found = session_spans(history.facts, history.state, lambda _: False)
    assert {span.begins for span in found.spans} == {0}
    assert len(found.spans) == 2, "the path that was superseded, and the one that was taken"


@pytest.fixture(scope="module")
def court(tmp_path_factory: pytest.TempPathFactory) -> Court:
    """Every lie, judged in full."""
    made = Court(tmp_path_factory.mktemp("court"))
    asyncio.run(_judged(made))
    return made


async def _judged(court: Court) -> None:
    children = Children()
    try:
        await court.hear(children, "", list(LIES))
        for name in CODE:
            code = {"architecture": "workload", "workload": name}
            lies = ["honest", *OF_CODE] if name == "hiding" else ["honest"]
            await court.hear(children, f"{name}_", lies, model=code)
        for lie in court.told:
            court.found[lie] = await court.judge(lie, AuditOptions("full", workers=2), children)
        for lie in ("other_losses", "weights_from_elsewhere"):
            court.bisected[lie] = await court.judge(lie, AuditOptions("bisect", workers=2), children)
        for seed in (court.lucky, court.unlucky):
            asked = AuditOptions("spot", segments=1, seed=seed)
            court.found[f"seed {seed}"] = await court.judge("weights_from_elsewhere", asked, children)
        await court.with_code(children)
        court.found["running"] = await audited(court.home, court.running, AuditOptions("full", workers=2), children)
    finally:
        await children.close()


def test_an_honest_account_passes(court: Court) -> None:
    assert court.found["honest"].verdict == "pass", court.found["honest"].as_json()


@pytest.mark.parametrize("lie", [lie for lie in LIES if lie != "honest"])
def test_every_lie_is_found_by_a_full_audit(court: Court, lie: str) -> None:
    found = court.found[lie].as_json()
    assert found["verdict"] == "fail"
    first = found["first_divergence"]
    assert first["position"] > 0
    wanted = {"better_figures": 40, "stopped_at_will": AT + 20}.get(lie, AT)
    assert first["first"] <= wanted <= first["last"] + 1, first


def test_a_running_session_passes_and_says_up_to_where_it_was_looked_at(court: Court) -> None:
    found = court.found["running"]
    assert found.verdict == "pass", found.as_json()
    assert found.steps_checked == AT + 20
    assert any(f"up to step {AT + 20}" in told for told in found.unchecked)


def test_the_very_step_of_a_false_loss_is_named(court: Court) -> None:
    first = court.found["other_losses"].as_json()["first_divergence"]
    assert (first["field"], first["step"]) == ("losses", AT + 7)
    located = court.bisected["other_losses"].located
    assert located is not None
    assert located.window == [AT, AT + 20]
    assert located.step == AT + 7
    assert located.reproducible
    assert located.operator is None
    assert located.operators_compared > 20


def test_the_very_sensor_that_was_told_otherwise_is_named(court: Court) -> None:
    first = court.found["other_sensors"].as_json()["first_divergence"]
    assert (first["field"], first["first"]) == ("sensors.cosine", AT)
    assert first["recorded"] != first["computed"]


def test_bisect_names_the_attempt_whose_weights_came_from_elsewhere(court: Court) -> None:
    located = court.bisected["weights_from_elsewhere"].located
    assert located is not None
    assert located.step == AT


def test_a_lot_finds_a_lie_when_it_falls_on_its_span_and_says_how_likely_that_is(court: Court) -> None:
    assert court.found[f"seed {court.lucky}"].verdict == "fail"
    missed = court.found[f"seed {court.unlucky}"]
    assert missed.verdict == "pass"
    assert missed.detection["one"] == pytest.approx(1 / missed.spans_total, abs=1e-6)


def test_lots_fall_on_every_span_equally_often(court: Court) -> None:
    spans = court.spans("honest")
    hits = [sum(one in draw_spans(spans, 2, seed, "s") for seed in range(2000)) for one in spans]
    assert all(abs(hit / 2000 - 2 / len(spans)) < 0.05 for hit in hits), hits


def test_code_that_came_along_runs_only_when_it_is_trusted(court: Court) -> None:
    refused = court.found["noisy_honest"].as_json()
    assert refused["verdict"] == "not-comparable"
    assert "noisy" in refused["differing"][0]
    trusted = court.found["trusted"].as_json()
    assert trusted["verdict"] == "fail", "what it computes is another thing each time"


def test_code_that_changes_the_comparing_functions_is_judged_by_a_process_that_never_loads_it(court: Court) -> None:
    found = court.found["cheat"].as_json()
    assert found["verdict"] == "fail", found
    assert found["first_divergence"]["field"] == "losses"
    assert any("code of workload 'cheat'" in told for told in found["unchecked"])


def test_code_that_says_in_an_audit_that_its_bytes_are_gone_is_not_believed(court: Court) -> None:
    found = court.found["hiding"].as_json()
    assert (found["verdict"], found["spans_checked"]) == ("not-comparable", 0)
    assert "the bytes are gone" in found["differing"][0]


def test_code_that_changes_torchs_settings_in_an_audit_does_not_pass(court: Court) -> None:
    found = court.found["unseal"].as_json()
    assert found["verdict"] == "not-comparable"
    assert "torch is not sealed: cudnn.benchmark" in found["differing"][0]


def test_a_lie_about_what_a_workload_records_beside_its_loss_is_found(court: Court) -> None:
    first = court.found["scalars"].as_json()["first_divergence"]
    assert (first["field"], first["first"]) == ("scalars.doubled", AT)


def test_an_operator_that_answers_differently_each_time_is_named(court: Court) -> None:
    located = court.bisected["trusted"].located
    assert located is not None
    assert not located.reproducible
    assert located.operator is not None
    assert located.operator.operator.startswith("aten."), located


async def test_another_machine_is_not_comparable_and_its_families_are_named(court: Court) -> None:
    session = court.told["honest"]
    facts = Archive(court.home).read(session).history.facts
    claim = next(fact.event for fact in facts if isinstance(fact.event, TrainingClaimed))
    families = claim.families | {"gelu": "0"}
    here = MachineIdentity(fingerprint="f" * 64, families=families, engine_bits=claim.engine_bits + 1)
    named = audit_subject.machine_differences(facts, here)
    assert named == ["family gelu", f"engine_bits {claim.engine_bits}, here {claim.engine_bits + 1}"]


async def test_what_is_provably_wrong_fails_on_any_machine(court: Court) -> None:
    said = [fact.event for fact in court.facts[court.told["honest"]] if fact.lane == "trainer"]
    elsewhere = said[0].model_copy(update={"fingerprint": "f" * 64, "families": {"gelu": "0"}})
    honest = court.again(court.told["honest"], [elsewhere, *said[1:]])
    lying = court.again(court.told["honest"], [elsewhere, *said[1:-1], said[-1].model_copy(update={"values": {}})])
    other = elsewhere.model_copy(update={"resolved": said[0].resolved | {"evaluation_batch": 7}})
    newer = court.again(court.told["honest"], [other, *said[1:]])
    for mode in ("spot", "full", "bisect"):
        assert (await audited(court.home, honest, AuditOptions(mode))).verdict == "not-comparable"
        assert (await audited(court.home, newer, AuditOptions(mode))).verdict == "not-comparable", (
            "it may resolve otherwise"
        )
        assert (await audited(court.home, lying, AuditOptions(mode))).verdict == "fail"


async def test_numbers_that_the_request_does_not_resolve_to_fail_in_every_mode_that_computes(court: Court) -> None:
    said = [fact.event for fact in court.facts[court.told["honest"]] if fact.lane == "trainer"]
    claim = said[0].model_copy(update={"resolved": said[0].resolved | {"evaluation_batch": 7}})
    session = court.again(court.told["honest"], [claim, *said[1:]])
    for mode in ("spot", "full", "bisect"):
        found = await audited(court.home, session, AuditOptions(mode, segments=1))
        assert found.verdict == "fail"
        assert "evaluation_batch is 7" in found.divergences[0].message


def test_the_command_ends_with_3_unless_the_verdict_is_pass(court: Court) -> None:
    said = [fact.event for fact in court.facts[court.told["honest"]] if fact.lane == "trainer"]
    elsewhere = said[0].model_copy(update={"fingerprint": "f" * 64, "families": {"gelu": "0"}})
    session = court.again(court.told["honest"], [elsewhere, *said[1:]])
    for mode, code, verdict in (("log", 0, "pass"), ("full", 3, "not-comparable")):
        words = ["audit", session, "--mode", mode, "--home", str(court.home.root), "--json"]
        done = CliRunner().invoke(swarm, words)
        assert (done.exit_code, json.loads(done.stdout)["verdict"]) == (code, verdict)


def test_a_bundle_without_rows_is_not_comparable_and_says_how_to_make_one_with_them(
    court: Court, tmp_path: Path
) -> None:
    blobs, root = DirectoryBlobs(court.home.blobs), court.fingerprint
    for wanted, code in (((), 3), (("dataset",), 0)):
        made = make_bundle(
            Archive(court.home), court.told["honest"], blobs, tmp_path / f"{len(wanted)}.zip", wanted=wanted
        )
        done = CliRunner().invoke(swarm, ["audit", str(made.path), "--mode", "bisect", "--root", root])
        assert done.exit_code == code, done.stdout
        told = "no step differs" if wanted else "swarm bundle S --dataset"
        assert told in done.stdout


def test_the_chances_of_a_lot_are_told_in_words(court: Court) -> None:
    told = dict.fromkeys(value for name, value in span_rows(court.found[f"seed {court.unlucky}"]) if name == "chance")
    assert "if 10% of all spans were wrong, one of these would be with a chance of 10.0%" in told
    assert any(one.startswith("if a single span were wrong, it would be one of these") for one in told)
    idle = replace(court.found[f"seed {court.unlucky}"], detection=detection(0, 5))
    assert [value for name, value in span_rows(idle) if name == "chance"] == [
        "nothing was computed again, so no wrong span would be found"
    ]


async def test_a_claim_with_a_key_that_nobody_knows_is_not_comparable_and_the_key_is_named(court: Court) -> None:
    said = [fact.event for fact in court.facts[court.told["honest"]] if fact.lane == "trainer"]
    claim = said[0].model_copy(update={"resolved": said[0].resolved | {"invented": 7}})
    session = court.again(court.told["honest"], [claim, *said[1:]])
    found = await audited(court.home, session, AuditOptions("full"))
    assert found.verdict == "not-comparable"
    assert "invented" in found.differing[0]


@pytest.mark.parametrize("threads", [10**9, 0, "many"])
async def test_a_claim_of_any_number_of_threads_starts_no_more_than_an_audit_allows(
    court: Court, threads: object
) -> None:
    said = [fact.event for fact in court.facts[court.told["honest"]] if fact.lane == "trainer"]
    claim = said[0].model_copy(update={"resolved": said[0].resolved | {"threads": threads}})
    session = court.again(court.told["honest"], [claim, *said[1:]])
    recorded = Archive(court.home).read(session).history.state.training.claim
    assert recorded is not None
    assert Conditions.of(machine_of(recorded)).seal.threads == 1
    assert likely_machine(court.home.log(session))["threads"] == 1
    found = await audited(court.home, session, AuditOptions("full"))
    assert found.verdict == "not-comparable"
    assert any(one.startswith(f"threads {threads!r}") for one in found.differing)


async def test_where_nothing_was_trained_no_mode_that_computes_passes(court: Court) -> None:
    session = court.requested()
    for mode in ("spot", "full", "bisect"):
        assert (await audited(court.home, session, AuditOptions(mode))).verdict == "not-comparable"


async def test_an_interrupted_audit_goes_on_where_it_was_and_trusts_nothing_that_changed(court: Court) -> None:
    asked, session = AuditOptions("full", workers=1), court.told["honest"]
    log = audit.check_log(Archive(court.home), session, DirectoryBlobs(court.home.blobs))
    children, told = Children(), list[str]()

    def interrupted(line: str) -> None:
        told.append(line)
        if len(told) == 2:
            raise InterruptedError

    async def again(source: AuditSubject) -> ReplayVerdict:
        return await recomputation.recompute(log, source, asked, children)

    source = material(court.home, session)
    notes = source.work / f"{session}.json"
    try:
        with pytest.raises(ExceptionGroup):
            await recomputation.recompute(log, source, asked, children, interrupted)
        kept = notes.read_bytes()
        assert (await again(source)).spans_resumed == 2
        assert not notes.exists()
        notes.write_bytes(kept)
        other = court.told["other_losses"]
        (source.work / f"{other}.json").write_bytes(kept)
        found = await audited(court.home, other, asked, children)
        assert found.verdict == "fail"
        assert found.spans_resumed < 5
    finally:
        await children.close()


async def test_weights_are_rebuilt_inside_a_window_and_a_lie_on_the_way_is_told(court: Court, tmp_path: Path) -> None:
    children = Children()
    try:
        source, out = material(court.home, court.told["honest"]), tmp_path / "w.safetensors"
        made = await rebuild_weights(source, 20, out, children, trust_code=False)
        history = source.kept.history
        seen = [fact.event for fact in history.facts if isinstance(fact.event, WindowRecorded)]
        assert made["weights_digest"] == next(one.weights_digest for one in seen if one.last == 20)
        inside = await rebuild_weights(source, AT + 9, out, children, trust_code=False)
        assert inside["from_step"] == AT
        assert safe_open(out, "pt").metadata()["weights_digest"] == inside["weights_digest"]
        lie = material(court.home, court.told["other_losses"])
        await rebuild_weights(lie, AT + 5, out, children, trust_code=False)
        with pytest.raises(NotVerified, match="does not lead to step"):
            await rebuild_weights(lie, AT + 9, out, children, trust_code=False)
    finally:
        await children.close()
