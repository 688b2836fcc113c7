"""What only a note that was kept elsewhere can show, and what the ledger and a pinned root show without one."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from click.testing import CliRunner

from bus import notes
from bus.blobs import DirectoryBlobs
from bus.files import read
from bus.keys import HEADER, Signer, new_signer
from bus.port import StoredRecord
from bus.records import frame, title
from contracts.errors import Failed, NotFound, NotVerified
from contracts.ids import sha256
from contracts.ledger import LedgerCheckpointed, SessionSealed
from runtime import audit
from runtime.audit import Verdict
from runtime.audit.ledger_check import keep_anchor, newest_note, read_anchors
from runtime.bundle import verify_bundle
from runtime.cli.main import swarm
from runtime.log.archive import Archive
from tests.runtime.recorded_home import RecordedHome
from tests.runtime.recorded_session import full_session
from tests.verifiers import SCHEMAS


@pytest.fixture
def recorded(tmp_path: Path) -> RecordedHome:
    return RecordedHome(tmp_path / "home")


def anchored(recorded: RecordedHome, session: str) -> list[str]:
    return [newest_note(Archive(recorded.home).read(session).history)]


def audited(recorded: RecordedHome, session: str, anchors: list[str] | None = None, root: str = "") -> Verdict:
    found = audit.check_log(Archive(recorded.home, root), session, DirectoryBlobs(recorded.home.blobs), anchors=anchors)
    if anchors is not None:
        refused = any(one.what == "anchor" for one in found.divergences)
        assert refused == bool(alone(recorded, session, anchors)), "the stand-alone program says something else"
    return found


def alone(recorded: RecordedHome, session: str, anchors: list[str]) -> str:
    """What the stand-alone program has against these anchors, the log being as it is."""
    home, ring = recorded.home, verify_bundle.Keyring(recorded.ring, recorded.fingerprint)
    told = [verify_bundle.records_of(one, home.log(one).read_bytes())[1] for one in (recorded.ring, session)]
    verify_bundle.Reader("keyring", recorded.ring, ring, SCHEMAS).read(told[0])
    events = verify_bundle.Reader("log", session, ring, SCHEMAS).read(told[1])
    try:
        assert verify_bundle.check_anchors("".join(anchors), session, events, ring.keys.values()) == len(anchors)
    except verify_bundle.Broken as broken:
        return str(broken)
    return ""


def rewrite(recorded: RecordedHome, session: str, change: Callable[[list[StoredRecord]], list[StoredRecord]]) -> None:
    path = recorded.home.log(session)
    path.write_bytes(title(session) + b"".join(frame(one) for one in change(list(read(path)))))


def test_an_anchored_note_fits_the_log_that_it_was_taken_from(recorded: RecordedHome):
    session = full_session(recorded, seal=False)
    early = anchored(recorded, session)
    recorded.say(session, "ledger", recorded.seal(session))
    found = audited(recorded, session, [*early, *anchored(recorded, session)])
    assert (found.verdict, found.anchors) == ("pass", 2)


def test_a_session_cut_before_its_seal_is_caught_by_an_anchor(recorded: RecordedHome):
    session = full_session(recorded)
    kept = anchored(recorded, session)
    rewrite(recorded, session, lambda records: records[:20])
    alone = audited(recorded, session)
    assert alone.verdict == "pass"
    assert "not sealed yet" in alone.unchecked[0], "nothing inside a log can show that it once was longer"
    assert audited(recorded, session, kept).divergences[0].what == "anchor"


def test_another_session_in_its_place_is_caught_by_an_anchor(recorded: RecordedHome):
    first, second = full_session(recorded), full_session(recorded)
    assert (
        "no note that was given is about" in audited(recorded, second, anchored(recorded, first)).divergences[0].message
    )


def test_a_history_under_fresh_keys_is_caught_by_the_root(recorded: RecordedHome, tmp_path: Path):
    session = full_session(recorded)
    forger = RecordedHome(tmp_path / "forged")
    forged = full_session(forger)
    shutil.copytree(forger.home.sessions, recorded.home.sessions, dirs_exist_ok=True)
    shutil.rmtree(recorded.home.sessions / session)
    shutil.rmtree(recorded.home.sessions / recorded.ring)
    assert audited(forger, forged).verdict == "pass", "in itself it is consistent"
    assert audited(recorded, forged).divergences[0].what == "keyring"
    assert audited(forger, forged, root=recorded.fingerprint).divergences[0].what == "keyring"


def test_a_history_under_fresh_keys_is_caught_by_an_anchor(recorded: RecordedHome, tmp_path: Path):
    kept = anchored(recorded, full_session(recorded))
    forger = RecordedHome(tmp_path / "forged")
    assert audited(forger, full_session(forger), kept).divergences[-1].what == "anchor"


@pytest.mark.parametrize("role", ["trainer", "checkpoint_keeper", "exporter", "data_manager"])
def test_what_the_thief_of_one_roles_key_rewrites_is_caught_by_the_ledger(recorded: RecordedHome, role: str):
    session = full_session(recorded)
    thief = recorded.signers[role]
    rewrite(recorded, session, lambda records: forged(records, role, thief))
    found = audited(recorded, session)
    assert found.verdict == "fail"
    assert found.divergences[0].what in ("ledger.checkpointed", "session.sealed")
    assert "the root over" in found.divergences[0].message


def forged(records: list[StoredRecord], role: str, thief: Signer) -> list[StoredRecord]:
    """The role's lane with another first event, every later one chained to it and signed again."""
    made, prev = [], ""
    for one in records:
        body = orjson.loads(one.body)
        if body["lane"] == role:
            body |= {"prev": prev} if prev else {"source": "/somewhere/else"}
            said = orjson.dumps(body)
            prev = sha256(said)
            one = StoredRecord(one.seq, one.subject, said, {HEADER: thief.sign(said)} if one.headers else {})
        made.append(one)
    return made


def test_the_thief_of_a_key_cannot_add_to_what_is_sealed(recorded: RecordedHome):
    session = full_session(recorded)
    path = recorded.home.log(session)
    last = list(read(path))[-1]
    body = next(one for one in read(path) if ".trainer." in one.subject)
    path.write_bytes(path.read_bytes() + frame(StoredRecord(last.seq + 1, body.subject, body.body, body.headers)))
    assert audited(recorded, session).divergences[0].what == "late"


def test_the_files_alone_are_audited_when_the_brokers_store_is_gone(recorded: RecordedHome):
    session = full_session(recorded)
    shutil.rmtree(recorded.home.root / "nats", ignore_errors=True)
    assert audited(recorded, session).verdict == "pass"


def test_a_running_session_says_up_to_where_it_is_signed(recorded: RecordedHome):
    session = full_session(recorded, seal=False)
    found = audited(recorded, session)
    assert found.verdict == "pass"
    assert found.signed_events == 15
    assert "the ledger has signed the first 15" in found.unchecked[0]


def test_a_file_of_anchors_holds_each_note_once(recorded: RecordedHome, tmp_path: Path):
    first, second = full_session(recorded), full_session(recorded)
    for session in (first, second, first):
        path = keep_anchor(anchored(recorded, session)[0], str(tmp_path / "anchors"))
    assert read_anchors([path]) == [*anchored(recorded, first), *anchored(recorded, second)]


def test_a_file_of_anchors_that_was_changed_is_refused(recorded: RecordedHome, tmp_path: Path):
    path = keep_anchor(anchored(recorded, full_session(recorded))[0], str(tmp_path / "anchors"))
    path.write_text(path.read_text() + "\n")
    with pytest.raises(NotVerified):
        read_anchors([path])
    with pytest.raises(NotFound):
        read_anchors([tmp_path / "other"])


def test_a_note_forged_into_the_anchors_is_signed_by_nobody(recorded: RecordedHome):
    session = full_session(recorded)
    note = anchored(recorded, session)[0]
    forged_note = note.replace(f"\n{note.split(chr(10))[1]}\n", "\n3\n", 1)
    assert "signed by no key" in audited(recorded, session, [forged_note]).divergences[0].message


def test_an_anchor_that_says_what_is_there_and_was_signed_by_somebody_else_is_refused(recorded: RecordedHome):
    """The seal's note is known by its members as well; of one of before, the signature alone tells."""
    session = full_session(recorded)
    kept = [fact.event for fact in recorded.facts[session]]
    anchors = [notes.parse(one.note) for one in kept if isinstance(one, LedgerCheckpointed | SessionSealed)]
    assert [bool(said.extension("members")) for said in anchors] == [False] * (len(anchors) - 1) + [True]
    for said in (anchors[0], anchors[-1]):
        for signer in (recorded.signers["trainer"], new_signer("ledger")):
            found = audited(recorded, session, [notes.sign(said, signer)])
            assert "signed by no key" in found.divergences[0].message
        assert audited(recorded, session, [notes.sign(said, recorded.signers["ledger"])]).verdict == "pass"


@pytest.mark.parametrize("other", [{"root": b"x" * 32}, {"size": 3}, {"size": 1000}, {"extensions": ("members 1",)}])
def test_an_anchor_that_the_ledger_signed_and_that_says_something_else_is_refused(
    recorded: RecordedHome, other: dict[str, Any]
):
    session = full_session(recorded)
    said = replace(notes.parse(anchored(recorded, session)[0]), **other)
    assert audited(recorded, session, [notes.sign(said, recorded.signers["ledger"])]).verdict == "fail"


def test_notes_are_committed_into_a_repository(recorded: RecordedHome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("GIT_AUTHOR_NAME", "GIT_COMMITTER_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_EMAIL"):
        monkeypatch.setenv(name, "auditor@example.org")
    session, folder = full_session(recorded), tmp_path / "repository"
    folder.mkdir()
    with pytest.raises(Failed, match="git"):
        keep_anchor(anchored(recorded, session)[0], f"git:{folder}")
    subprocess.run(["git", "init", "-q", str(folder)], check=True)
    done = CliRunner().invoke(
        swarm, ["anchor", session, "--to", f"git:{folder}", "--home", str(recorded.home.root), "--json"]
    )
    assert done.exit_code == 0, done.output
    shown = json.loads(done.stdout)
    said = subprocess.run(["git", "-C", str(folder), "log", "--format=%s"], capture_output=True, text=True, check=True)
    assert shown["root"] in said.stdout
    given = ["audit", session, "--home", str(recorded.home.root), "--anchor", shown["path"]]
    assert CliRunner().invoke(swarm, given).exit_code == 0
