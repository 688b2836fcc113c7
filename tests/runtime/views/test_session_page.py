"""The page about a session: what happened when, what is marked, what checkpoints were worth; of homes and bundles."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from contracts.diagnostician import ProblemDiagnosed
from contracts.operator import SessionRequested
from contracts.session import SessionState, advance
from contracts.trainer import InterventionApplied, TrainingClaimed, TrainingPaused, TrainingResumed
from runtime.audit.log_check import make_bundle
from runtime.cli.main import swarm
from runtime.log.archive import Archive
from runtime.log.session_log import SessionLog
from runtime.views import html, markdown, terminal, view
from runtime.views.answer_pages import session_page
from runtime.views.blocks import Curves, Timeline, walk
from runtime.views.checkpoints import checkpoints_page, list_checkpoints
from runtime.views.session_page import report_page
from runtime.views.session_record import SessionRecord
from tests.runtime.recorded_home import RecordedHome, claimed, completed, evaluated, window

HOSTILE = "x</title><script>alert(1)</script>\x1b[2K\n|"
MINUTE = "2026-01-02T03:{:02d}:05.000000Z"


@pytest.fixture
def recorded(tmp_path: Path) -> RecordedHome:
    return RecordedHome(tmp_path / "home")


def run(recorded: RecordedHome, *arguments: str) -> Result:
    return CliRunner().invoke(swarm, [*arguments, "--home", str(recorded.home.root)])


def eventful(recorded: RecordedHome) -> SessionLog:
    """A session that was killed and claimed again, paused, diagnosed and changed; each a minute after the other."""
    session = recorded.requested()
    problem = ProblemDiagnosed(
        rule="plateau",
        segment=1,
        first=0,
        last=50,
        severity="warning",
        message=HOSTILE,
        cure="lower the rate",
        evidence=[],
        figures={},
    )
    applied = InterventionApplied(
        proposal="p", by="plateau", segment=2, step=50, changes={"learning_rate": 0.1}, reproducible=True
    )
    told = [
        ("trainer", claimed()),
        ("trainer", window(0, 50)),
        ("trainer", claimed().model_copy(update={"epoch": 2, "resumed_from": 50})),
        ("trainer", TrainingPaused(by="person", segment=1, step=50)),
        ("trainer", TrainingResumed(segment=1, step=50)),
        ("diagnostician", problem),
        ("trainer", applied),
        ("trainer", window(50, 100).model_copy(update={"segment": 2})),
        ("trainer", evaluated(100, 0.25).model_copy(update={"segment": 2})),
        ("trainer", completed("0" * 64).model_copy(update={"segment": 2})),
    ]
    for minute, (lane, event) in enumerate(told, 5):
        recorded.say(session, lane, event, time=MINUTE.format(minute))
    return Archive(recorded.home).read(session).history


def test_a_timeline_tells_attempts_pauses_and_plans(recorded: RecordedHome) -> None:
    history = eventful(recorded)
    timeline = SessionRecord.of(history.state, history.facts).timeline
    assert timeline is not None
    bars = {(bar.line, bar.label): (bar.begins, bar.ends) for bar in timeline.bars}
    # The first attempt ends with the last that it said: nobody was there to say that it was killed.
    assert bars == {
        ("preparing", "data"): (0.0, 60.0),
        ("training", "attempt 1"): (60.0, 120.0),
        ("training", "attempt 2"): (180.0, 600.0),
        ("paused", ""): (240.0, 300.0),
        ("plan", "segment 1"): (60.0, 420.0),
        ("plan", "segment 2"): (420.0, 600.0),
    }


def test_interventions_restarts_and_the_best_step_are_marked_in_every_curve(recorded: RecordedHome) -> None:
    history = eventful(recorded)
    page = report_page(history.state, SessionRecord.of(history.state, history.facts))
    drawn = [block for block in walk(page.blocks) if isinstance(block, Curves)]
    assert [curves.title for curves in drawn] == ["Loss", "Metrics", "Learning rate", "Gradient norm"]
    for curves in drawn:
        told = {(mark.x, mark.tone) for mark in curves.marks}
        assert told == {(50, "warn"), (50, "note"), (100, "good")}
        assert "by plateau" in next(mark.label for mark in curves.marks if mark.tone == "warn")


def test_a_report_tells_each_diagnosis_with_its_cure_and_how_to_verify_it_all(recorded: RecordedHome) -> None:
    history = eventful(recorded)
    page = report_page(history.state, SessionRecord.of(history.state, history.facts), "f" * 64)
    text = html.render(page)
    tree = ET.fromstring(text.removeprefix("<!DOCTYPE html>\n"))
    cells = ["".join(cell.itertext()) for cell in tree.iter("td")]
    assert "lower the rate" in cells
    assert any("<script>alert(1)</script>" in cell for cell in cells)
    assert not list(tree.iter("script"))
    told = "".join(tree.itertext())
    assert f"swarm audit {history.id}" in told
    assert f"swarm fork {history.id} --at 0" in told
    assert page.lead.startswith(f"training {history.id}, requested ")
    assert "f" * 64 in told


@pytest.mark.parametrize("time", ["no time", "2026-01-02", "9999-99-99T00:00:00Z", ""])
def test_times_that_are_none_leave_a_page_without_a_timeline(recorded: RecordedHome, time: str) -> None:
    session = recorded.requested(time=time)
    recorded.say(session, "trainer", claimed(), window(0, 50), time=time)
    history = Archive(recorded.home).read(session).history
    page = report_page(history.state, SessionRecord.of(history.state, history.facts))
    timelines = [block for block in walk(page.blocks) if isinstance(block, Timeline)]
    assert all(bar.begins == bar.ends == 0 for timeline in timelines for bar in timeline.bars)
    assert view.wall_seconds(history.state) == 0
    assert "Loss" in markdown.render(page)


def test_a_report_is_made_of_a_session_and_of_its_bundle(recorded: RecordedHome, tmp_path: Path) -> None:
    session = recorded.trained()
    bundle = make_bundle(Archive(recorded.home), session, recorded.blobs, tmp_path / "one.zip").path
    pages = {name: tmp_path / f"{name}.html" for name in ("home", "again", "bundle")}
    for name, source in (("home", session), ("again", session), ("bundle", str(bundle))):
        made = run(recorded, "report", source, "--out", str(pages[name]))
        assert made.exit_code == 0, made.output
    assert pages["home"].read_bytes() == pages["again"].read_bytes()
    assert "not pinned" in pages["bundle"].read_text()
    assert "not pinned" not in pages["home"].read_text()
    assert not (recorded.home.sessions / session / "report.md").exists()


def test_every_command_with_a_page_writes_it_as_the_ending_says(recorded: RecordedHome, tmp_path: Path) -> None:
    session = recorded.trained()
    commands = (["show", session], ["diff", session, session], ["audit", session], ["checkpoints", session])
    for words in commands:
        for ending, begins in (("html", "<!DOCTYPE html>"), ("md", "# "), ("txt", "")):
            path = tmp_path / f"{words[0]}.{ending}"
            made = run(recorded, *words, "-o", str(path))
            assert made.exit_code == 0, made.output
            assert made.stdout == ""
            assert path.read_text().startswith(begins)
            assert session in path.read_text()
    refused = run(recorded, "show", session, "--out", str(tmp_path / "page.pdf"), "--json")
    assert refused.exit_code == 2
    assert ".html" in json.loads(refused.stdout)["error"]["cure"]


def test_checkpoints_say_what_was_recorded_at_their_steps(recorded: RecordedHome) -> None:
    session = recorded.trained()
    found = json.loads(run(recorded, "checkpoints", session, "--json").stdout)
    (line,) = found["checkpoints"]
    assert line["metrics"] == {"val_loss": 0.25, "val_accuracy": 0.75}
    # Neither the claim of this session nor its request says of either.
    assert (line["epoch"], found["optimizer"]) == (None, None)
    assert "val_loss=0.25  val_accuracy=0.75" in run(recorded, "checkpoints", session).stdout


ANYTHING: list[Any] = [10**400, -(10**400), "x" * 9, [], None, {"batch": "y"}]


@pytest.mark.parametrize("value", ANYTHING, ids=lambda value: str(value)[:12])
def test_a_strangers_request_and_claim_may_hold_anything(recorded: RecordedHome, value: Any) -> None:
    history, state = eventful(recorded), SessionState("")
    request = dict.fromkeys(("name", "optimizer", "checkpoints"), value)
    resolved = {"batch": value, "accumulate": 10**12, "rows": value, "every_steps": value, "steps_total": 100}
    for fact in history.facts:
        match fact.event:
            case SessionRequested() as event:
                fact = fact._replace(event=event.model_copy(update={"request": request}))
            case TrainingClaimed() as event:
                fact = fact._replace(event=event.model_copy(update={"resolved": resolved}))
        state = advance(state, fact)
    lines = list_checkpoints(state, recorded.home.blobs)
    record = SessionRecord.of(state, history.facts)
    for page in (report_page(state, record), session_page(view.summary(state)), checkpoints_page(state, lines)):
        for render in (html.render, markdown.render, terminal.render):
            assert len(render(page)) < 200_000
