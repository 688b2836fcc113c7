"""What a home's files say with no swarm up, and that it is what was said."""

from __future__ import annotations

from pathlib import Path

import pytest

from bus import fast_admission
from bus.decode import Reason
from bus.files import read
from bus.keys import HEADER
from bus.records import frame, title
from contracts.errors import NotFound, NotVerified
from runtime.home.home import Home
from runtime.log.archive import Archive
from runtime.views.summaries import Summaries
from tests.runtime.recorded_home import RecordedHome
from tests.runtime.recorded_session import full_session


@pytest.fixture
def recorded(tmp_path: Path) -> RecordedHome:
    return RecordedHome(tmp_path / "home")


def test_a_session_is_read_as_it_was_said(recorded: RecordedHome):
    session = recorded.trained()
    kept = Archive(recorded.home).read(session)
    assert [fact.id for fact in kept.history.facts] == [fact.id for fact in recorded.facts[session]]
    assert kept.voids == ()
    assert kept.torn_bytes == 0


def test_a_session_is_read_at_once_as_it_is_record_by_record(recorded: RecordedHome, monkeypatch: pytest.MonkeyPatch):
    for session in (full_session(recorded), full_session(recorded, seal=False), recorded.trained()):
        at_once = Archive(recorded.home).read(session)
        with monkeypatch.context() as patched:
            patched.setattr(fast_admission, "admit_session", refused)
            one_by_one = Archive(recorded.home).read(session)
        assert at_once.history.facts == one_by_one.history.facts
        assert list(at_once.history.states) == list(one_by_one.history.states)
        assert at_once.stored == one_by_one.stored
        assert at_once.admission.lanes(session) == one_by_one.admission.lanes(session)


def refused(lines: fast_admission.FileLines, asked: fast_admission.AdmissionInputs) -> fast_admission.RecordRun:
    raise fast_admission.NeedsFullAdmission


def test_a_signature_that_was_changed_under_a_note_is_void(recorded: RecordedHome):
    session = recorded.trained()
    path = recorded.home.log(session)
    records = list(read(path))
    header = records[1].headers[HEADER]
    forged = f"{header[:20]}{'A' if header[20] != 'A' else 'B'}{header[21:]}"
    records[1] = records[1]._replace(headers={HEADER: forged})
    path.write_bytes(title(session) + b"".join(map(frame, records)))
    assert Archive(recorded.home).read(session).voids[0].reason == Reason.SIGNATURE


def test_a_sealed_session_is_completed_with_its_metrics(recorded: RecordedHome):
    seen = Summaries(recorded.home).session(recorded.trained())
    assert (seen["state"], seen["step"], seen["epoch"], seen["kind"]) == ("completed", 100, 2, "training")
    assert seen["metrics"] == {"val_loss": 0.25, "val_accuracy": 0.75}


def test_keyrings_are_not_listed_among_sessions(recorded: RecordedHome):
    first, second = recorded.trained(), recorded.requested("search")
    assert {one["session"] for one in Summaries(recorded.home).sessions()} == {first, second}


def test_the_keyring_can_be_read_by_its_own_name(recorded: RecordedHome):
    kept = Archive(recorded.home).read(recorded.ring)
    assert kept.admission.keyring().root == recorded.root_public


def test_a_home_without_sessions_has_none(tmp_path: Path):
    assert Summaries(Home(tmp_path / "nothing")).sessions() == []


def test_a_session_that_is_not_there_is_not_found(recorded: RecordedHome):
    with pytest.raises(NotFound, match="there is no session"):
        Archive(recorded.home).read("00-aaaaaaaaaaaaaaaaaaaaaaaaaa")


def test_a_damaged_file_stops_nobody_from_listing_the_others(recorded: RecordedHome):
    good, bad = recorded.trained(), recorded.trained()
    path = recorded.home.log(bad)
    body = bytearray(path.read_bytes())
    body[len(body) // 2] ^= 1
    path.write_bytes(body)
    listed = {one["session"]: one for one in Summaries(recorded.home).sessions()}
    assert listed[good]["state"] == "completed"
    assert listed[bad]["kind"] == "unreadable"
    assert "damaged" in listed[bad]["problem"]["message"]


def test_the_file_of_another_session_is_refused(recorded: RecordedHome):
    one, other = recorded.trained(), recorded.trained()
    recorded.home.log(one).write_bytes(recorded.home.log(other).read_bytes())
    with pytest.raises(NotVerified, match="is the log of"):
        Archive(recorded.home).read(one)


def test_another_root_believes_nothing_of_it(recorded: RecordedHome):
    session = recorded.trained()
    kept = Archive(recorded.home, root="0" * 64).read(session)
    assert kept.history.size == 0
    assert kept.voids


def test_event_lines_begin_behind_a_position(recorded: RecordedHome):
    session = recorded.trained()
    lines = list(Summaries(recorded.home).events(session, after=3))
    assert [line["seq"] for line in lines] == list(range(4, len(recorded.facts[session]) + 1))
