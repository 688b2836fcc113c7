"""What a long history holds is given back in pieces, and to nobody's harm."""

from __future__ import annotations

from pathlib import Path
from weakref import ref

import pytest

from runtime.log import session_log
from runtime.log.session_log import DetachedLog
from runtime.views.summaries import Summaries
from tests.runtime.recorded_home import RecordedHome


@pytest.fixture
def recorded(tmp_path: Path) -> RecordedHome:
    return RecordedHome(tmp_path / "home")


def test_what_a_history_held_is_given_back_once_nobody_has_it(recorded: RecordedHome) -> None:
    history = Summaries(recorded.home).history(recorded.trained())
    events, facts, states = [ref(fact.event) for fact in history.facts], len(history.facts), list(history.states)
    remains = DetachedLog(history)
    assert not remains.release(), "somebody has it"
    assert (len(history.facts), list(history.states)) == (facts, states)
    del states, history
    assert all(event() is not None for event in events), "it is held until it is given back"
    assert remains.release()
    assert not any(event() for event in events)


def test_every_list_is_emptied_whatever_its_length(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_log, "_PIECE", 3)
    lists = [list(range(n)) for n in (0, 1, 3, 10)]
    session_log.release(*lists)
    assert lists == [[], [], [], []]


def test_a_history_is_the_same_with_its_records_and_without(recorded: RecordedHome) -> None:
    archive, session = Summaries(recorded.home), recorded.trained()
    running = recorded.requested()
    recorded.home.log(running).write_bytes(recorded.home.log(running).read_bytes() + b"torn")
    for one in (session, running, recorded.ring):
        whole, alone = archive.read(one).history, archive.history(one)
        assert (alone.facts, alone.state, alone.said) == (whole.facts, whole.state, whole.said)
        assert archive.session(one)["events"] == len(whole.facts)
