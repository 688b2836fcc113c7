"""What the front desk keeps of the sessions in the home's files: so much, and no more."""

from __future__ import annotations

from pathlib import Path

import pytest

from bus.admission import Admission
from bus.memory import MemoryBus
from runtime.commands import session_index
from runtime.commands.session_index import SessionIndex
from runtime.log.follower import LogFollower
from runtime.views.summaries import Summaries
from tests.runtime.recorded_home import RecordedHome


async def test_of_sealed_sessions_a_bounded_number_of_summaries_stays_at_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded, read = RecordedHome(tmp_path / "home"), list[str]()
    sessions = [recorded.trained() for _ in range(4)]
    within = Summaries.summary
    monkeypatch.setattr(Summaries, "summary", lambda self, session: read.append(session) or within(self, session))
    monkeypatch.setattr(session_index, "_MOST_TOLD", 2)
    found = SessionIndex(recorded.home, LogFollower(MemoryBus(), Admission(root=recorded.fingerprint)))
    for _ in range(2):
        page, ended = await found.page("", 1 << 20)
        assert ended
        assert {one["session"] for one in page} == {*sessions}
        assert len(found._told) == 2
    again, _ = await found.page(page[-2]["session"], 1 << 20)
    assert again == page[-1:]
    assert len(read) == 8, "what came last stays at hand"
