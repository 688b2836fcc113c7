"""An audit passes on what was said, and on nothing else."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bus import fast_admission
from bus.blobs import DirectoryBlobs
from bus.files import read
from bus.keys import HEADER, new_signer
from bus.port import StoredRecord
from bus.records import frame, title
from contracts import ids
from contracts.diagnostician import InterventionProposed
from contracts.errors import NotFound
from contracts.findings import Mode
from contracts.fork import Fork
from contracts.ledger import LedgerCheckpointed
from contracts.trainer import InterventionApplied
from contracts.validator import CheckpointValidated
from runtime import audit
from runtime.audit import UNANCHORED, Verdict, log_check
from runtime.audit.log_check import make_bundle
from runtime.audit.log_digest import fast_digest
from runtime.bundle import verify_bundle
from runtime.engine.dataset import PIECE
from runtime.log.archive import Archive, StoredSession
from runtime.replay.audit_plan import AuditOptions, lay_out
from runtime.replay.audit_subject import AuditSubject
from tests.runtime.recorded_home import DIGEST, RecordedHome, claimed, completed, evaluated, window
from tests.runtime.recorded_session import full_session, prepared, written

Change = Callable[[list[StoredRecord]], list[StoredRecord]]


@pytest.fixture
def recorded(tmp_path: Path) -> RecordedHome:
    return RecordedHome(tmp_path / "home")


def audited(
    recorded: RecordedHome, session: str, *, root: str = "", at_least: int = 0, anchors: list[str] | None = None
) -> Verdict:
    archive = Archive(recorded.home, root)
    return audit.check_log(archive, session, DirectoryBlobs(recorded.home.blobs), at_least=at_least, anchors=anchors)


def rewritten(recorded: RecordedHome, session: str, change: Change) -> Verdict:
    """The verdict after a forger, who can make well-formed files, has written other records."""
    path = recorded.home.log(session)
    records = change(list(read(path)))
    path.write_bytes(title(session) + b"".join(frame(one) for one in records))
    return audited(recorded, session)


def test_a_sealed_session_passes(recorded: RecordedHome):
    session = recorded.trained()
    found = audited(recorded, session).as_json()
    assert found["verdict"] == "pass"
    assert found["first_divergence"] is None
    assert found["events"] == len(recorded.facts[session])
    assert found["lanes"] == 5
    assert found["root"] == recorded.fingerprint
    assert found["checkpoints"] == 2
    assert found["blobs"] == 4, "a checkpoint, an export, the schemas and the verifier"
    assert found["signatures"] > 0


def test_a_running_session_passes_and_says_that_its_end_is_open(recorded: RecordedHome):
    found = audited(recorded, recorded.trained(seal=False))
    assert found.verdict == "pass"
    assert "not sealed yet" in found.unchecked[0]


def test_without_a_pinned_root_the_verdict_says_unanchored(recorded: RecordedHome):
    session = recorded.trained()
    (recorded.home.keys / "root.pub").unlink()
    found = audited(recorded, session)
    assert (found.verdict, found.root) == ("pass", UNANCHORED)


def test_a_foreign_root_fails_and_both_roots_are_named(recorded: RecordedHome, tmp_path: Path):
    session = recorded.trained()
    made = make_bundle(Archive(recorded.home), session, DirectoryBlobs(recorded.home.blobs), tmp_path / "b.zip")
    for found in (audited(recorded, session, root="0" * 64), audit.check_bundle(made.path, root="0" * 64)):
        (told,) = found.divergences
        assert (found.verdict, found.session, told.what) == ("fail", session, "keyring")
        assert (
            told.message == f"its keys are those of root {recorded.fingerprint}, and root {'0' * 64} is to be trusted"
        )


def test_every_single_byte_of_the_file_counts(recorded: RecordedHome):
    session = recorded.trained()
    path = recorded.home.log(session)
    body = path.read_bytes()
    for place in range(0, len(body), 97):
        changed = bytearray(body)
        changed[place] ^= 1
        path.write_bytes(changed)
        assert audited(recorded, session).verdict == "fail", f"a flipped bit in byte {place} went unnoticed"


def test_a_record_that_is_left_out_is_missed(recorded: RecordedHome):
    session = recorded.trained()
    path = recorded.home.log(session)
    records = list(read(path))
    for place in range(len(records) - 1):
        left = [*records[:place], *records[place + 1 :]]
        path.write_bytes(title(session) + b"".join(frame(one) for one in left))
        assert audited(recorded, session).verdict == "fail", f"record {place + 1} was not missed"


def test_a_body_that_is_changed_breaks_its_chain_or_signature(recorded: RecordedHome):
    def change(records: list[StoredRecord]) -> list[StoredRecord]:
        body = records[2].body.replace(b'"first":0', b'"first":1')
        assert body != records[2].body
        return [*records[:2], records[2]._replace(body=body), *records[3:]]

    found = rewritten(recorded, recorded.trained(), change)
    assert found.verdict == "fail"
    assert found.divergences[0].position == 3


def test_records_that_change_places_are_noticed(recorded: RecordedHome):
    def change(records: list[StoredRecord]) -> list[StoredRecord]:
        a, b = records[-4], records[-3]
        return [*records[:-4], b._replace(seq=a.seq), a._replace(seq=b.seq), *records[-2:]]

    assert rewritten(recorded, recorded.trained(), change).verdict == "fail"


def test_a_forged_signature_is_no_signature(recorded: RecordedHome):
    forger = new_signer("trainer")

    def change(records: list[StoredRecord]) -> list[StoredRecord]:
        forged = {HEADER: forger.sign(records[1].body)}
        return [records[0], records[1]._replace(headers=forged), *records[2:]]

    found = rewritten(recorded, recorded.trained(), change)
    assert found.divergences[0].what == "key"


def test_a_ledger_that_signs_another_tree_is_caught(recorded: RecordedHome):
    session = recorded.trained(seal=False)
    said = recorded.noted(session)
    recorded.say(session, "ledger", said.model_copy(update={"root": "0" * 64}))
    found = audited(recorded, session)
    assert found.divergences[0].what == "ledger.checkpointed"
    assert "the root over" in found.divergences[0].message


def test_a_note_that_says_something_else_than_its_event_is_caught(recorded: RecordedHome):
    session = recorded.trained(seal=False)
    early = next(fact.event for fact in recorded.facts[session] if isinstance(fact.event, LedgerCheckpointed))
    recorded.say(session, "ledger", recorded.noted(session).model_copy(update={"note": early.note}))
    assert "its note says" in audited(recorded, session).divergences[0].message


def test_a_seal_with_other_lane_heads_is_caught(recorded: RecordedHome):
    session = recorded.trained(seal=False)
    seal = recorded.seal(session)
    recorded.say(session, "ledger", seal.model_copy(update={"lanes": seal.lanes | {"trainer": "0" * 64}}))
    assert "the sealed heads of trainer" in audited(recorded, session).divergences[0].message


@pytest.mark.parametrize("change", [{"export/1/model.onnx": "0" * 64}, {"more": "0" * 64}, {"checkpoint/1/100": None}])
def test_a_seal_that_names_other_members_than_the_events_is_caught(
    recorded: RecordedHome, change: dict[str, str | None]
):
    session = recorded.trained(seal=False)
    seal = recorded.seal(session)
    members = {name: digest for name, digest in {**seal.members, **change}.items() if digest}
    assert members.keys() - {"more"} | set(change) - {"more"} == seal.members.keys()
    recorded.say(session, "ledger", recorded.signed(session, seal.model_copy(update={"members": members})))
    (found,) = audited(recorded, session).divergences
    assert f"its members {next(iter(change))} are not those that the events name" == found.message


def _without_a_claim(recorded: RecordedHome) -> str:
    session = recorded.requested()
    recorded.say(session, "trainer", window(0, 50), claimed(), window(50, 100), evaluated(100, 0.5))
    return session


def _with_an_end_of_its_own(recorded: RecordedHome) -> str:
    session = recorded.requested()
    recorded.say(session, "trainer", claimed(), window(0, 50), evaluated(50, 0.75), window(50, 100))
    recorded.say(session, "trainer", evaluated(100, 0.5), completed("b" * 64, 0.25))
    return session


def _with_two_claims(recorded: RecordedHome) -> str:
    session = recorded.requested()
    other = claimed().model_copy(update={"epoch": 2, "resolved": {"steps_total": 100, "invented": 7}})
    recorded.say(session, "trainer", claimed(), window(0, 50), other)
    return session


def _with_a_change_that_nobody_proposed(recorded: RecordedHome) -> str:
    session = recorded.requested()
    change = InterventionApplied(
        proposal="evt-none", by="trainer", segment=2, step=50, changes={"learning_rate": 0.5}, reproducible=True
    )
    recorded.say(session, "trainer", claimed(), window(0, 50), change, window(50, 100))
    return session


def _with_steps_on_no_path(recorded: RecordedHome) -> str:
    session = recorded.requested()
    about = {"segment": 1, "reason": "test", "automatic": False, "rule": "person"}
    back = InterventionProposed(rewind_to=50, changes={"learning_rate": 0.5}, **about)
    (asked,) = recorded.say(session, "diagnostician", back)
    change = InterventionApplied(
        proposal=asked.id, by="trainer", segment=2, step=50, changes={"learning_rate": 0.5}, reproducible=True
    )
    recorded.say(session, "trainer", claimed(), window(0, 50), window(50, 100), change, window(50, 100))
    return session


def _with_dissent(recorded: RecordedHome) -> str:
    session = recorded.trained(seal=False)
    about = {"segment": 1, "step": 100, "blob": "b" * 64, "split": "val", "rows": 10, "metrics": {}}
    details = {"control": {"recorded_and_computed": {"val_loss": ["0x1p-2", "0x1p-1"]}}}
    recorded.say(session, "validator", CheckpointValidated(control="differs", details=details, **about))
    return session


def _with_other_rows(recorded: RecordedHome) -> str:
    session = recorded.requested()
    recorded.say(session, "data_manager", prepared(recorded))
    recorded.say(session, "trainer", claimed())
    return session


def _with_another_beginning(recorded: RecordedHome) -> str:
    session = recorded.requested()
    recorded.say(session, "trainer", claimed(), claimed().model_copy(update={"initial": DIGEST}))
    return session


def _with_a_decision(recorded: RecordedHome, rewind_to: int | None = None, **changes: Any) -> str:
    session = recorded.requested()
    about = {"segment": 1, "reason": "test", "automatic": False, "rule": "person"}
    back = InterventionProposed(rewind_to=rewind_to, changes={"learning_rate": 0.5}, **about)
    (asked,) = recorded.say(session, "diagnostician", back)
    said = {"proposal": asked.id, "by": "trainer", "segment": 2, "step": 50, "reproducible": True}
    change = InterventionApplied(**{**said, "changes": {"learning_rate": 0.5}, **changes})
    recorded.say(session, "trainer", claimed(), window(0, 50), evaluated(50, 0.5), change)
    return session


def _with_another_change_than_was_proposed(recorded: RecordedHome) -> str:
    return _with_a_decision(recorded, changes={"learning_rate": 0.25})


def _with_another_step_than_was_proposed(recorded: RecordedHome) -> str:
    return _with_a_decision(recorded, rewind_to=40)


def _with_a_segment_left_out(recorded: RecordedHome) -> str:
    return _with_a_decision(recorded, segment=3)


def _with_an_end_from_another_path(recorded: RecordedHome) -> str:
    session = _with_a_decision(recorded, rewind_to=0, step=0)
    late = window(0, 100).model_copy(update={"segment": 2})
    recorded.say(session, "trainer", late, completed("b" * 64, 0.5).model_copy(update={"segment": 2}))
    return session


def _of_a_fork_with_another_beginning(recorded: RecordedHome) -> str:
    fork = Fork(
        session=ids.session_id(ids.new_uuid()),
        root=None,
        size=0,
        sealed=False,
        step=50,
        segment=1,
        weights_digest=DIGEST,
        state_root=DIGEST,
        blob=None,
        dataset=DIGEST,
        resolved={},
        changes=[],
        set={},
        rows_without=0,
        evaluations=[],
        without=[],
    )
    session = recorded.requested(fork=fork)
    recorded.say(session, "trainer", claimed(), written(recorded, 50).model_copy(update={"state_root": "0" * 64}))
    return session


CONTRADICTIONS = {
    _with_other_rows: (3, "was prepared"),
    _with_another_beginning: (3, "and the first claim with"),
    _with_another_change_than_was_proposed: (6, "was proposed"),
    _with_another_step_than_was_proposed: (6, "goes back to step 50"),
    _with_a_segment_left_out: (6, "the next one is 2"),
    _with_an_end_from_another_path: (8, "not those of the last evaluation"),
    _of_a_fork_with_another_beginning: (3, "begins with state_root"),
    _without_a_claim: (2, "before anybody claimed"),
    _with_an_end_of_its_own: (7, "not those of the last evaluation"),
    _with_two_claims: (4, "invented is 7"),
    _with_a_change_that_nobody_proposed: (4, "nobody proposed it"),
    _with_steps_on_no_path: (7, "lie on no path"),
    _with_dissent: (0, "another control metric at step 100"),
}


@pytest.mark.parametrize("story", CONTRADICTIONS, ids=lambda story: story.__name__.strip("_"))
def test_what_a_log_says_against_itself_fails_in_the_mode_that_computes_nothing(
    recorded: RecordedHome, story: Callable[[RecordedHome], str], monkeypatch: pytest.MonkeyPatch
):
    position, message = CONTRADICTIONS[story]
    session = story(recorded)
    swiftly = audited(recorded, session)
    monkeypatch.setattr(log_check, "fast_digest", lambda archive, session: None)
    assert swiftly == audited(recorded, session)
    assert swiftly.verdict == "fail"
    assert message in swiftly.divergences[0].message
    assert swiftly.divergences[0].position == (position or len(recorded.facts[session]))


@pytest.mark.parametrize("mode", ["spot", "full", "bisect"])
@pytest.mark.parametrize("story", CONTRADICTIONS, ids=lambda story: story.__name__.strip("_"))
def test_what_a_log_says_against_itself_is_found_before_anything_is_computed_in_every_mode_that_computes(
    recorded: RecordedHome, story: Callable[[RecordedHome], str], mode: Mode, tmp_path: Path
):
    session = story(recorded)
    material = AuditSubject(Archive(recorded.home).read(session), DirectoryBlobs(recorded.home.blobs), tmp_path)
    docket, _ = lay_out(material, AuditOptions(mode), None, lambda blob: False)
    assert CONTRADICTIONS[story][1] in "; ".join(one.message for one in docket.broken)


@pytest.mark.parametrize("story", CONTRADICTIONS, ids=lambda story: story.__name__.strip("_"))
def test_what_a_log_says_against_itself_fails_in_the_program_of_its_bundle(
    recorded: RecordedHome, story: Callable[[RecordedHome], str], tmp_path: Path
):
    position, _ = CONTRADICTIONS[story]
    session = story(recorded)
    position = position or len(recorded.facts[session])
    recorded.say(session, "ledger", recorded.seal(session))
    path = make_bundle(Archive(recorded.home), session, DirectoryBlobs(recorded.home.blobs), tmp_path / "b.zip").path
    assert audit.check_bundle(path).divergences[0].position == position
    found = verify_bundle.findings(path)
    assert (found["verdict"], found["divergence"].split(":")[1]) == ("fail", f" event {position}")
    assert verify_bundle.findings(path, contradictions=False)["verdict"] == "pass"


def test_an_end_with_values_that_are_no_numbers_contradicts_nothing(recorded: RecordedHome):
    session = recorded.requested()
    recorded.say(session, "trainer", claimed(), window(0, 100), evaluated(100, math.nan), completed("b" * 64, math.nan))
    assert audited(recorded, session).verdict == "pass"


def test_a_session_that_contradicts_itself_is_bundled_and_fails_as_a_bundle(recorded: RecordedHome, tmp_path: Path):
    session = _with_dissent(recorded)
    recorded.say(session, "ledger", recorded.seal(session))
    made = make_bundle(Archive(recorded.home), session, DirectoryBlobs(recorded.home.blobs), tmp_path / "b.zip")
    assert "another control metric" in audit.check_bundle(made.path).divergences[0].message


def test_a_file_shorter_than_what_the_swarm_holds_fails(recorded: RecordedHome):
    session = recorded.trained(seal=False)
    held = len(recorded.facts[session])
    assert audited(recorded, session, at_least=held).verdict == "pass"
    assert audited(recorded, session, at_least=held + 1).divergences[0].what == "short"


def test_a_damaged_blob_fails_and_a_missing_one_is_unchecked(recorded: RecordedHome):
    session = recorded.trained()
    model = next(path for path in recorded.home.blobs.rglob("*") if path.is_file() and path.read_bytes() == b"a model")
    model.chmod(0o600)
    model.write_bytes(b"a modem")
    found = audited(recorded, session)
    assert (found.verdict, found.divergences[0].what) == ("fail", "blob")
    model.unlink()
    found = audited(recorded, session)
    assert found.verdict == "pass"
    assert any("model.onnx" in told for told in found.unchecked)


def test_a_torn_end_fails(recorded: RecordedHome):
    session = recorded.trained()
    path = recorded.home.log(session)
    path.write_bytes(path.read_bytes()[:-10])
    assert audited(recorded, session).divergences[0].what == "torn"


def test_a_changed_keyring_fails_every_session(recorded: RecordedHome):
    session = recorded.trained()
    path = recorded.home.log(recorded.ring)
    path.write_bytes(path.read_bytes().replace(b'"test"', b'"best"'))
    assert audited(recorded, session).verdict == "fail"


def test_a_session_without_a_file_is_not_found(recorded: RecordedHome):
    with pytest.raises(NotFound):
        audited(recorded, "00-aaaaaaaaaaaaaaaaaaaaaaaaaa")


def test_a_log_in_order_is_judged_swiftly_as_it_is_closely(recorded: RecordedHome, monkeypatch: pytest.MonkeyPatch):
    sessions = [
        full_session(recorded),
        full_session(recorded, seal=False, guest=False),
        recorded.trained(),
        recorded.requested("search"),
    ]
    note = recorded.noted(sessions[1]).note
    with monkeypatch.context() as unread:
        unread.setattr(Archive, "read", unwanted)
        swiftly = [audited(recorded, session) for session in sessions]
        anchored = audited(recorded, sessions[1], anchors=[note])
    monkeypatch.setattr(log_check, "fast_digest", lambda archive, session: None)
    assert swiftly == [audited(recorded, session) for session in sessions]
    assert anchored == audited(recorded, sessions[1], anchors=[note])
    assert {one.verdict for one in (*swiftly, anchored)} == {"pass"}


def unwanted(archive: Archive, session: str) -> StoredSession:
    raise AssertionError(f"{session} was read")


def test_a_blob_that_is_damaged_is_found_without_reading_the_log_closely(
    recorded: RecordedHome, monkeypatch: pytest.MonkeyPatch
):
    session = recorded.trained()
    next(recorded.home.blobs.rglob(recorded.blobs.put(b"a checkpoint"))).write_bytes(b"another")
    monkeypatch.setattr(Archive, "read", unwanted)
    found = audited(recorded, session)
    assert [one.what for one in found.divergences] == ["blob"]


def test_a_long_log_is_judged_at_once_and_a_change_anywhere_takes_a_closer_look(recorded: RecordedHome):
    session = recorded.requested()
    recorded.say(session, "trainer", claimed())
    for n in range(5):
        recorded.say(session, "trainer", *(window(n * 900 + at, n * 900 + at + 1) for at in range(900)))
        recorded.say(session, "ledger", recorded.noted(session))
    told = fast_digest(Archive(recorded.home), session)
    assert told is not None
    assert told.size == 4507
    path = recorded.home.log(session)
    records = list(read(path))
    for place in (5, 1500, 4400):
        body = records[place].body.replace(b'"segment":1', b'"segment":2')
        changed = [*records[:place], records[place]._replace(body=body), *records[place + 1 :]]
        path.write_bytes(title(session) + b"".join(frame(one) for one in changed))
        assert fast_digest(Archive(recorded.home), session) is None


def test_whatever_was_changed_both_ways_come_to_the_same_verdict(
    recorded: RecordedHome, monkeypatch: pytest.MonkeyPatch
):
    session = recorded.trained()
    path = recorded.home.log(session)
    data, records = path.read_bytes(), list(read(path))
    changed = [_flipped(data, place) for place in range(0, len(data), 499)]
    for at in range(len(records)):
        one = records[at]._replace(body=_flipped(records[at].body, (at * 61) % len(records[at].body)))
        left = [*records[:at], *records[at + 1 :]]
        unsigned = [*records[:at], records[at]._replace(headers={}), *records[at + 1 :]]
        again = (left, unsigned, [*records[:at], one, *records[at + 1 :]], records[: at + 1])
        changed += [title(session) + b"".join(map(frame, made)) for made in again]
    for content in (data, *changed):
        path.write_bytes(content)
        found = audited(recorded, session)
        with monkeypatch.context() as closely:
            closely.setattr(fast_admission, "FileLines", _unusual)
            assert found == audited(recorded, session)


def _flipped(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


def _unusual(data: bytes, session: str) -> fast_admission.FileLines:
    raise fast_admission.NeedsFullAdmission


@pytest.mark.parametrize("left", [0, PIECE], ids=["to nothing", "to whole pieces"])
def test_rows_that_were_cut_off_fail(recorded: RecordedHome, left: int) -> None:
    session = recorded.requested()
    made = prepared(recorded, columns=PIECE // 160 + 1)
    recorded.say(session, "data_manager", made)
    file = recorded.home.blobs / "datasets" / made.root / "train.x.bin"
    assert file.stat().st_size > PIECE
    assert audited(recorded, session).verdict == "pass"
    os.truncate(file, left)
    found = audited(recorded, session)
    assert found.verdict == "fail"
    (divergence,) = found.divergences
    assert divergence.message.endswith(f"train.x.bin: piece {left // PIECE} is not what was prepared")
