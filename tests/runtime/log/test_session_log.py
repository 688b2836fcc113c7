"""The fold of a session after any of its events, whichever of them are kept."""

from __future__ import annotations

from itertools import accumulate
from pathlib import Path

import pytest

from contracts.session import SessionState, advance
from runtime.log.archive import Archive
from runtime.log.session_log import SessionLog, StateHistory
from tests.runtime.recorded_home import RecordedHome, evaluated, window


def test_the_state_after_any_event_is_the_fold_up_to_it(tmp_path: Path):
    recorded = RecordedHome(tmp_path / "home")
    session = recorded.trained(seal=False)
    said = [one for n in range(StateHistory.EVERY) for one in (window(n, n + 1), evaluated(n, 1 / (n + 1)))]
    recorded.say(session, "trainer", *said)
    history = Archive(recorded.home).read(session).history
    assert history.size > 2 * StateHistory.EVERY
    folded = list(accumulate(history.facts, advance, initial=SessionState(session)))
    assert [history.states[n] for n in range(len(history.states))] == folded
    assert history.states[-2] == folded[-2]
    assert history.state is history.states[history.size]


def test_there_is_no_state_beyond_the_last_event():
    history = SessionLog("00-" + "a" * 26)
    assert history.states[0] == SessionState(history.id)
    with pytest.raises(IndexError):
        history.states[1]
