"""A long session whose windows are kept by place is the session that holds all of them."""

from __future__ import annotations

from itertools import accumulate
from pathlib import Path

import pytest

from bus.admission import Admission
from bus.memory import MemoryBus
from bus.records import RecordPlaces
from contracts.envelope import Fact
from contracts.errors import NotVerified
from contracts.session import SessionState, advance
from contracts.trainer import CheckpointWritten, WindowRecorded
from runtime.home.home import Home
from runtime.log import archive as module
from runtime.log.archive import Archive
from runtime.log.copies import Copies
from runtime.log.follower import LogFollower
from runtime.log.placed_facts import PlacedFacts
from runtime.log.session_log import SessionLog, StateHistory
from tests.runtime.recorded_home import RecordedHome, claimed, evaluated, window
from tests.runtime.recorded_session import full_session


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> RecordedHome:
    return RecordedHome(tmp_path_factory.mktemp("placed") / "home")


@pytest.fixture(scope="module")
def long(recorded: RecordedHome) -> str:
    """More than two runs of records, with notes between them, and open."""
    session = recorded.requested()
    recorded.say(session, "trainer", claimed())
    for n in range(3):
        recorded.say(session, "trainer", *(window(800 * n + at, 800 * n + at + 1) for at in range(800)))
        recorded.say(session, "trainer", evaluated(800 * n + 800, 0.5))
        recorded.say(session, "ledger", recorded.noted(session))
    recorded.say(session, "trainer", window(2400, 2401))
    return session


def held(history: SessionLog) -> list[Fact]:
    assert isinstance(history.facts, PlacedFacts)
    return [*history.facts.held()]


@pytest.fixture
def by_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LONG_FILE", 0)


def test_a_session_read_by_place_answers_as_one_that_is_held(
    recorded: RecordedHome, long: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for session in (long, full_session(recorded), recorded.trained()):
        whole = Archive(recorded.home).read(session)
        monkeypatch.setattr(module, "LONG_FILE", 0)
        placed, alone = Archive(recorded.home).read(session), Archive(recorded.home).history(session)
        monkeypatch.undo()
        assert not any(isinstance(fact.event, WindowRecorded) for fact in [*held(placed.history), *held(alone)])
        assert tuple(placed.stored) == whole.stored
        assert placed.admission.lanes(session) == whole.admission.lanes(session)
        assert placed.admission.sealed(session) == whole.admission.sealed(session)
        for history in (placed.history, alone):
            assert history.facts == whole.history.facts
            assert [*reversed(history.facts)] == whole.history.facts[::-1]
            assert history.facts[3:90:7] == whole.history.facts[3:90:7]
            assert history.state == whole.history.state
            assert [*history.since(5)] == whole.history.facts[5:]
            assert [history.states[n] for n in range(0, history.size, 97)] == [
                whole.history.states[n] for n in range(0, history.size, 97)
            ]
            for fact in whole.history.facts:
                assert history.find(fact.lane, fact.id) == fact
                assert history.find("ledger" if fact.lane != "ledger" else "trainer", fact.id) is None


@pytest.mark.usefixtures("by_place")
def test_windows_are_read_back_only_for_who_asks_for_them(
    recorded: RecordedHome, long: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    history = Archive(recorded.home).history(long)
    windows = [fact for fact in history.facts if isinstance(fact.event, WindowRecorded)]
    assert [*history.telling((WindowRecorded, CheckpointWritten))] == windows
    assert [fact.event for fact in history.beginning(900).telling((WindowRecorded,))] == [
        window(at, at + 1) for at in range(896)
    ]

    def refused(*_: object) -> None:
        raise AssertionError("the file is read")

    monkeypatch.setattr(RecordPlaces, "stored", refused)
    assert {fact.name for fact in history.telling((type(claimed()), type(evaluated(1, 1))))} == {
        "training.claimed",
        "control.evaluated",
    }


@pytest.mark.usefixtures("by_place")
def test_a_file_that_was_changed_after_it_was_read_is_not_believed(tmp_path: Path) -> None:
    recorded = RecordedHome(tmp_path / "home")
    session = recorded.trained(seal=False)
    history = Archive(recorded.home).history(session)
    (first, *_) = history.telling((WindowRecorded,))
    path = recorded.home.log(session)
    path.write_bytes(path.read_bytes().replace(b'"step":50', b'"step":51').replace(b'"last":50', b'"last":51'))
    with pytest.raises(NotVerified, match="not what was read there before"):
        history.facts[first.position - 1]
    with pytest.raises(NotVerified):
        list(history.facts)


def grown(recorded: RecordedHome, facts: list[Fact], path: Path) -> SessionLog:
    """The history of a host that has heard these facts, a few at a time, while its copies are in a file."""
    history = SessionLog(facts[0].envelope.subject)
    for begin in range(0, len(facts), 7):
        history.add(facts[begin : begin + 7])
        history.put_away(lambda: RecordPlaces(path, history.id))
    return history


def test_of_a_session_that_grows_old_windows_are_put_away(
    recorded: RecordedHome, long: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(SessionLog, "NEWEST", 500)
    monkeypatch.setattr(SessionLog, "BLOCK", 100)
    facts = Archive(recorded.home).history(long).facts
    assert isinstance(facts, list)
    history = grown(recorded, facts, recorded.home.log(long))
    kept = [fact for fact in held(history) if isinstance(fact.event, WindowRecorded)]
    assert 500 <= len(kept) < 620
    assert kept[-1] == facts[-1]
    assert history.facts == facts
    assert all(history.find(fact.lane, fact.id) == fact for fact in facts)
    assert history.states[700] == [*accumulate(facts[:700], advance, initial=SessionState(long))][-1]
    assert len(history.said) < 650
    monkeypatch.undo()
    assert not isinstance(grown(recorded, facts, recorded.home.log(long)).facts, PlacedFacts), "short ones are held"
    elsewhere = tmp_path / "log"
    elsewhere.write_bytes(recorded.home.log(long).read_bytes().replace(b'"last":5', b'"last":6'))
    monkeypatch.setattr(SessionLog, "NEWEST", 500)
    monkeypatch.setattr(SessionLog, "BLOCK", 100)
    doubtful = grown(recorded, facts, elsewhere)
    assert held(doubtful) == facts, "what the file does not hold as it was admitted stays in memory"


def test_a_host_that_follows_a_long_session_holds_its_newest_windows_alone(
    recorded: RecordedHome, long: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(SessionLog, "NEWEST", 500)
    monkeypatch.setattr(SessionLog, "BLOCK", 900)
    copies = Copies(Home(tmp_path))
    tail = LogFollower(MemoryBus(), Admission(root=recorded.fingerprint), copy=copies.keep, places=copies.places)
    for stored in recorded.stream:
        tail.take(stored)
    copies.close()
    history = tail.history(long)
    assert 500 <= sum(isinstance(fact.event, WindowRecorded) for fact in held(history)) < 500 + 900
    assert history.facts == recorded.facts[long]
    copies = Copies(Home(tmp_path))
    again = LogFollower(MemoryBus(), Admission(root=recorded.fingerprint), copy=copies.keep, places=copies.places)
    for stored in recorded.stream:
        again.take(stored)
    copies.close()
    assert again.history(long).facts == recorded.facts[long]
    assert len(held(again.history(long))) < 500 + 900


def test_no_more_states_are_kept_of_a_session_however_long_it_is(
    recorded: RecordedHome, long: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(StateHistory, "EVERY", 4)
    monkeypatch.setattr(StateHistory, "MOST", 64)
    monkeypatch.setattr(StateHistory, "NEAR", 16)
    history = Archive(recorded.home).history(long)
    assert 16 < len(history.states.kept) <= 64
    states = StateHistory(long, [])
    for fact in history.facts:
        states.advance(fact)
        near = [state.events for state in states.kept[-16:]]
        assert near[-1] - near[0] == 4 * (len(near) - 1), "near the end of a session its states are at hand"
    folded = [*accumulate(history.facts, advance, initial=SessionState(long))]
    assert all(
        history.states[n] == folded[n] for n in [*range(0, history.size, 89), *range(history.size - 30, history.size)]
    )
