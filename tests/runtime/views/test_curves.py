"""Figures as tables: the path alone, one row per grid step; and the page that is made of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from contracts.diagnostician import ProblemDiagnosed
from contracts.trainer import AttemptEnded, InterventionApplied
from runtime.log.archive import Archive
from runtime.log.session_log import SessionLog
from runtime.views import curves, markdown
from runtime.views.session_page import report_page
from runtime.views.session_record import SessionRecord
from tests.runtime.recorded_home import RecordedHome, claimed, evaluated, window


@pytest.fixture
def recorded(tmp_path: Path) -> RecordedHome:
    return RecordedHome(tmp_path / "home")


def folded(recorded: RecordedHome, session: str):
    return Archive(recorded.home).read(session).history


def written(history: SessionLog, pictures: dict[str, str] | None = None) -> str:
    return markdown.render(report_page(history.state, SessionRecord.of(history.state, history.facts)), pictures)


def test_one_row_per_grid_step_with_window_and_evaluation(recorded: RecordedHome) -> None:
    history = folded(recorded, recorded.trained())
    rows = curves.rows(history.state, history.facts)
    assert [row["step"] for row in rows] == [50, 100]
    assert (rows[0]["loss"], rows[0]["val_loss"], rows[0]["learning_rate"]) == (1.0, 0.5, 0.001)
    assert curves.columns(rows)[:4] == ["step", "epoch", "segment", "loss"]
    assert curves.series(rows, "val_loss") == ([50, 100], [0.5, 0.25])


def test_what_a_rewind_left_behind_is_not_in_the_table(recorded: RecordedHome) -> None:
    session = recorded.trained(seal=False)
    applied = InterventionApplied(proposal="p", by="r", segment=2, step=50, changes={}, reproducible=True)
    again = window(50, 100).model_copy(update={"segment": 2, "learning_rate": 0.0001})
    recorded.say(session, "trainer", applied, again, evaluated(100, 0.2).model_copy(update={"segment": 2}))
    history = folded(recorded, session)
    rows = curves.rows(history.state, history.facts)
    assert [(row["step"], row["segment"], row["learning_rate"]) for row in rows] == [(50, 1, 0.001), (100, 2, 0.0001)]


def test_seconds_of_all_attempts_are_added(recorded: RecordedHome) -> None:
    session = recorded.trained(seal=False)
    for spent in ({"step": 1.5, "data": 0.5}, {"step": 2.0}):
        recorded.say(session, "trainer", AttemptEnded(epoch=1, segment=1, first=0, step=50, seconds=spent))
    assert curves.seconds(folded(recorded, session).facts) == {"step": 3.5, "data": 0.5}


def test_a_page_says_what_happened_and_how_to_check_it(recorded: RecordedHome) -> None:
    session = recorded.trained(seal=False)
    wrong = ProblemDiagnosed(
        rule="plateau",
        segment=1,
        first=0,
        last=50,
        severity="warning",
        message="a | pipe\nand <b>markup</b>",
        cure="",
        evidence=[],
        figures={},
    )
    spent = AttemptEnded(epoch=1, segment=1, first=0, step=100, seconds={"step": 3.0, "data": 1.0})
    recorded.say(session, "diagnostician", wrong)
    recorded.say(session, "trainer", spent)
    history = folded(recorded, session)
    page = written(history, {"loss": "plots/loss.svg"})
    for said in (
        "# digits",
        "| val_loss | 0.25 |",
        "plots/loss.svg",
        "| step | 3.00 s | 75% |",
        f"swarm audit {session}",
    ):
        assert said in page
    assert "plots/metrics.svg" not in page
    assert "a \\| pipe and &lt;b>markup&lt;/b>" in page


def test_a_page_of_a_session_that_has_only_begun_is_short_and_whole(recorded: RecordedHome) -> None:
    history = folded(recorded, recorded.requested())
    page = written(history)
    assert "preparing" in page
    assert "Loss" not in page


def test_rows_per_second_are_those_of_all_attempts_without_what_trained_none(recorded: RecordedHome) -> None:
    session = recorded.requested()
    resolved = {"batch": 8, "accumulate": 2, "rows": 1000, "steps_total": 100}
    recorded.say(session, "trainer", claimed().model_copy(update={"resolved": resolved}))
    for first, step, spent in ((0, 50, {"step": 1.5, "data": 0.5, "setup": 7.0, "held": 9.0}), (50, 80, {"step": 2.0})):
        attempt = AttemptEnded(epoch=1, segment=1, first=first, step=step, seconds=spent)
        recorded.say(session, "trainer", attempt)
    history = folded(recorded, session)
    assert SessionRecord.of(history.state, history.facts).rows_per_second == 80 * 16 / 4.0
    assert "320 rows per second of training." in written(history)
    odd = attempt.model_copy(update={"step": 10**400, "first": 10**400})
    assert curves.rows_per_second(history.state, [odd]) == 0.0
