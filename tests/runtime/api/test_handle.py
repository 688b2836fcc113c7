"""Training from Python: the swarm is started if needed, also from inside a running loop; failures are told."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import stigmergy
from contracts.errors import (
    Failed,
    InvalidInput,
    InvalidRequest,
    NotFound,
    Refused,
    SwarmError,
    TimedOut,
    Unreachable,
)
from runtime.home.home import Home
from runtime.jobs.event_loop import in_thread
from tests.harness import small_request
from tests.runtime.recorded_home import RecordedHome

REQUEST = {
    "data": {"source": "digits"},
    "model": {"architecture": "linear"},
    "training": {"epochs": 3},
    "early_stopping": {"enabled": False},
}


def swarm(home: Path, *arguments: str) -> None:
    command = [sys.executable, "-m", "runtime.cli.start", *arguments, "--home", str(home)]
    subprocess.run(command, check=True, capture_output=True, timeout=90)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    place = tmp_path_factory.mktemp("handle") / "home"
    try:
        yield place
    finally:
        swarm(place, "down")


async def test_training_in_a_running_loop_starts_the_swarm_and_shows_its_progress(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert Home(home).host() is None
    session = stigmergy.train(REQUEST, home=home)
    assert session.state == "completed"
    assert "training completed" in capsys.readouterr().err
    assert session.predict([[0.0] * 64])[0]["label"] in map(str, range(10))
    async with asyncio.timeout(30):
        while not (session.folder / "report.md").exists():
            await asyncio.sleep(0.05)
    figures = json.loads((session.folder / "metrics.json").read_text())
    assert figures["sealed"] == session.summary()["sealed"]


def test_a_session_is_continued_compared_audited_and_bundled_by_its_handle(home: Path, tmp_path: Path) -> None:
    once = stigmergy.train(REQUEST, home=home, request_id="once", progress=False)
    again = stigmergy.train(REQUEST, home=home, request_id="once", progress=False)
    assert again.id == once.id == stigmergy.Session("once", home=home).id
    assert once.metrics()["loss"][-1] == once.metrics()[-1]["loss"]
    last = once.checkpoints()[-1]
    fork = once.fork(last["step"], {"training.epochs": 4}, without=["train:3", "train:5"], progress=False)
    assert fork.summary()["fork"] == {
        "session": once.id,
        "step": last["step"],
        "segment": 1,
        "set": {"training.epochs": 4},
        "rows_without": 2,
    }
    assert stigmergy.diff(once, fork)["request"]["training.epochs"] == [3, 4]
    before = stigmergy.replay(once, step=0)
    assert (before["step"], before["event"]["name"]) == (0, "training.claimed")
    (tmp_path / "rows.csv").write_text(",".join(["0"] * 64) + "\n")
    assert once.predict(tmp_path / "rows.csv") == once.predict([[0] * 64])
    file = once.export("safetensors", checkpoint=last["step"])
    assert (file.path.stat().st_size, file.parity["max_abs"]) == (file.bytes, 0)
    verdict = stigmergy.audit(once, "spot", segments=1, seed=1)
    assert (verdict.verdict, verdict.spans_checked) == ("pass", 1)
    kept = stigmergy.anchor(once, tmp_path / "roots")
    assert (kept.session, kept.path, kept.sealed) == (once.id, tmp_path / "roots", True)
    assert stigmergy.audit(once, anchors=[kept.path]).anchors == 1
    content = stigmergy.inspect(f"{once.id}:{last['step']}", home=home)
    assert (content["blob"], content["session"], content["step"]) == (last["blob"], once.id, last["step"])
    with pytest.raises(NotFound, match="no checkpoint"):
        stigmergy.inspect("f" * 64, home=home)
    made = stigmergy.bundle(once, tmp_path / "bundle.zip", sections=["checkpoints"])
    assert "checkpoints" in made.sections
    assert stigmergy.audit(made.path).verdict == "pass"
    with pytest.raises(InvalidInput, match="no section 'checkpoint'"):
        stigmergy.bundle(once, tmp_path / "other.zip", sections=["checkpoint"])


def test_rows_and_steps_are_found_in_each_other(home: Path, tmp_path: Path) -> None:
    session = stigmergy.train(REQUEST, home=home, request_id="once", progress=False)
    seen = stigmergy.trace(session, step=2)
    name = seen["rows"][0]["place"]
    of_row = stigmergy.trace(session, row=name)
    assert 2 in of_row["steps"]
    assert all(window["held"] for window in [*of_row["windows"], *seen["windows"]])
    assert stigmergy.trace(session, row=name, limit=1)["more"] == of_row["times"] - 1
    with pytest.raises(InvalidInput, match="row or of a step"):
        stigmergy.trace(session)  # type: ignore[call-overload] # which a type checker would tell


def test_an_intervention_is_proven(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hot = small_request(
        optimizer={"type": "sgd", "learning_rate": 10.0},
        training={"epochs": 6, "batch_size": 64},
        diagnosis={"auto_fix": True},
    )
    with pytest.raises(Refused, match="no intervention took effect"):
        stigmergy.prove(stigmergy.train(REQUEST, home=home, request_id="once", progress=False))
    session = stigmergy.train(hot, home=home, progress=False, check=False)
    capsys.readouterr()
    shown = stigmergy.prove(session, 1, progress=False, timeout=60)
    assert capsys.readouterr().err == ""
    assert (shown["parent"], shown["verdict"], shown["differing"]) == (session.id, "better", 0)
    assert stigmergy.prove(session, timeout=60)["session"] == shown["session"]
    assert f"Proof {shown['session']}" in capsys.readouterr().err


async def test_a_program_submits_follows_and_cancels_without_blocking_its_loop(home: Path) -> None:
    async with stigmergy.Swarm.start(home=home) as swarm_:
        session = await swarm_.submit(REQUEST | {"training": {"epochs": 3000}}, request_id="long")
        async for line in swarm_.events("long", follow=True):
            if line["name"] == "training.claimed":
                await swarm_.cancel(session, "enough")
        assert (await swarm_.wait(session))["state"] == "cancelled"
        assert stigmergy.Session(session, home=home).state == "cancelled"


def test_a_session_may_be_waited_for_later(home: Path) -> None:
    session = stigmergy.train(REQUEST, home=home, wait=False)
    assert session.wait(timeout=60).state == "completed"


def test_a_session_that_fails_raises_with_the_reason_and_the_cure_unless_told_not_to(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A request that is no file names files of the folder in which the program runs.
    monkeypatch.chdir(home.parent)
    table = home.parent / "words.csv"
    table.write_text("a,b\n" + "1,\n" * 50)
    request = REQUEST | {"data": {"source": "csv", "path": str(table), "target": "b"}}
    with pytest.raises(Failed, match=r"value"):
        stigmergy.train(request, home=home, progress=False)
    assert stigmergy.train(request, home=home, progress=False, check=False).state == "failed"


def test_time_that_is_over_is_told_and_the_session_goes_on(home: Path) -> None:
    request = REQUEST | {"training": {"epochs": 3000}}
    with pytest.raises(TimedOut, match="goes on"):
        stigmergy.train(request, home=home, timeout=0.5)
    assert stigmergy.Session("last", home=home).state in ("requested", "preparing", "training")
    swarm(home, "cancel", "last")
    assert stigmergy.Session("last", home=home).wait(60).state == "cancelled"


def test_a_request_that_cannot_be_meant_is_refused_before_a_swarm_is_started(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="epoch"):
        stigmergy.train(REQUEST | {"training": {"epoch": 3}}, home=tmp_path / "never")
    assert not (tmp_path / "never").exists()


def test_a_notebook_shows_state_and_curves_in_a_frame_that_nothing_written_leaves(tmp_path: Path) -> None:
    recorded = RecordedHome(tmp_path / "home")
    recorded.requested(name='</iframe><script>"x"</script>')
    shown = stigmergy.Session("last", home=tmp_path / "home")
    html = shown._repr_html_()
    assert (html.count("<iframe"), html.count("</iframe>"), html.count("<script")) == (1, 1, 0)
    recorded.trained()
    session = stigmergy.Session("last", home=tmp_path / "home")
    text = session._repr_markdown_()
    assert "completed" in session.report(tmp_path / "page.html").read_text()
    with pytest.raises(InvalidInput, match="no ending of a page"):
        session.report(tmp_path / "page.pdf")
    assert "completed" in text
    assert "val_loss" in text


def test_waiting_for_an_open_session_needs_a_swarm(tmp_path: Path) -> None:
    recorded = RecordedHome(tmp_path / "home")
    recorded.requested()
    with pytest.raises(Unreachable):
        stigmergy.Session("last", home=tmp_path / "home").wait()


def test_an_error_of_ours_comes_out_of_the_groups_that_tasks_raise() -> None:
    async def fail() -> None:
        async with asyncio.TaskGroup():
            raise Failed("no", cure="none")

    with pytest.raises(SwarmError, match="no"):
        in_thread(fail)


def test_importing_stigmergy_is_light() -> None:
    code = "import sys, stigmergy; print(sorted({'torch', 'nats', 'pydantic', 'click', 'numpy'} & sys.modules.keys()))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"


async def test_a_program_connects_to_the_swarm_of_a_home_without_settings(home: Path, tmp_path: Path) -> None:
    async with stigmergy.Swarm.connect(home=home) as swarm_:
        assert await swarm_.command("status")
    with pytest.raises(Unreachable, match="no swarm runs"):
        async with stigmergy.Swarm.connect(home=tmp_path / "none"):
            pass
