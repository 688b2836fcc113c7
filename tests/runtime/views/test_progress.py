"""What a watcher sees: plain lines in a pipe, a board on a terminal."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from contracts.checkpoint_keeper import CheckpointPruned, CheckpointStored
from contracts.common import HandlerFailed
from contracts.event import Event
from contracts.hyperparameter_specialist import TrialFinished
from contracts.ledger import SessionSealed
from contracts.trainer import ControlEvaluated
from contracts.validator import CheckpointValidated
from runtime.views.progress import Board, Live, PlainProgress, RichBoard, progress
from runtime.views.summaries import Summaries
from runtime.views.view import event_of
from tests.contracts.told import DIGEST, line, requested
from tests.runtime.recorded_home import RecordedHome

BROKEN = HandlerFailed(role="validator", handler="judge", heard="x", error="it broke", attempts=3)


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    recorded = RecordedHome(Path(tmp_path_factory.mktemp("home")))
    return list(Summaries(recorded.home).events(recorded.trained()))


def drawn(board: Board, width: int = 100) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(RichBoard(board))
    return console.file.getvalue()  # type: ignore[attr-defined]


def folded(lines: list[dict[str, Any]]) -> Board:
    board = Board()
    for each in lines:
        board.take(each["lane"], event_of(each))
    return board


def test_a_pipe_gets_one_line_per_fact_and_no_escape_codes(lines: list[dict[str, Any]]):
    stream = io.StringIO()
    with progress(stream, live=False) as shown:
        for each in lines:
            shown.take(each)
    text = stream.getvalue()
    assert isinstance(shown, PlainProgress)
    assert "\x1b" not in text
    assert "trainer: epoch 1 step 50: val_loss=0.5" in text
    assert "steps 1..50" not in text


def test_what_is_said_of_every_checkpoint_is_counted_and_told_before_the_seal():
    told: list[str] = []
    shown, kept = PlainProgress(told.append), dict(segment=1, step=5, blob=DIGEST)

    def say(event: Event, lane: str) -> None:
        shown.take(line(event, lane) | {"time": "2026-01-01T12:10:15Z"})

    for roles in (["best"], ["last"], []):
        say(CheckpointStored(**kept, state_root=DIGEST, bytes=1, kept_as=roles), "checkpoint_keeper")
    say(CheckpointPruned(**kept, freed_bytes=9), "checkpoint_keeper")
    judged: Any = kept | dict(split="val", rows=3, metrics={"loss": 0.5}, control="reproduced", details={})
    say(CheckpointValidated(**judged), "validator")
    assert told == []
    say(CheckpointValidated(**judged | {"control": "differs"}), "validator")
    say(CheckpointValidated(**judged | {"split": "test"}), "validator")
    assert [line.rpartition(": ")[2] for line in told] == ["loss=0.5; control metric differs", "loss=0.5"]
    rest: Any = dict(last_seq=9, lanes={}, keyring="", keyring_size=1, keyring_root=DIGEST, members={}, note="")
    say(SessionSealed(size=9, root="ab" * 32, **rest), "ledger")
    assert told[2:] == [
        "12:10:15 checkpoint_keeper: checkpoints: 2 verified and kept, 1 let go",
        "12:10:15 validator: checkpoints: 1 judged, control metric reproduced",
        f"12:10:15 ledger: sealed over 9 events, root {'ab' * 8}",
    ]


def test_a_quiet_progress_tells_of_trouble_alone(lines: list[dict[str, Any]]):
    stream = io.StringIO()
    with progress(stream, live=True, quiet=True) as shown:
        for each in lines:
            shown.take(each)
        assert stream.getvalue() == ""
        shown.take(line(BROKEN, "validator"))
    assert "validator.judge failed 3 times: it broke" in stream.getvalue()


@pytest.mark.parametrize(
    ("enabled", "left", "stop", "shown"),
    [(True, 3, False, True), (True, 0, True, True), (False, 3, False, False), (False, 0, False, False)],
)
def test_patience_is_told_of_a_session_that_may_stop_early(enabled: bool, left: int, stop: bool, shown: bool):
    about: Any = dict(segment=1, epoch=2, step=9, values={"val_loss": 0.5}, metric="val_loss", improved=False)
    seen = ControlEvaluated(**about, best=0.4, best_step=5, stop=stop, patience_left=left)
    told: list[str] = []
    board, plain = Board(), PlainProgress(told.append)
    for event in (requested({"name": "s", "early_stopping": {"enabled": enabled}}), seen):
        board.take("trainer", event)
        plain.take(line(event))
    for text in (told[-1], board.lately["trainer"]):
        assert (f"(patience {left})" in text) == shown


def test_the_board_shows_steps_epochs_loss_and_metrics(lines: list[dict[str, Any]]):
    middle = folded(lines[:4])
    assert (middle.state, middle.step, middle.total, middle.epoch, middle.epochs) == ("training", 50, 100, 1, 2)
    text = drawn(middle)
    assert "step 50/100" in text
    assert "epoch 1/2" in text
    assert "val_loss=0.5" in text


def test_the_board_says_what_each_role_did_last(lines: list[dict[str, Any]]):
    text = drawn(folded(lines))
    assert "exporter" in text
    assert "model exported as onnx" in text
    assert "ledger" in text


def test_the_board_fits_a_narrow_terminal(lines: list[dict[str, Any]]):
    assert all(len(row) <= 60 for row in drawn(folded(lines), width=60).splitlines())


def test_a_search_counts_its_trials():
    finished = TrialFinished(number=1, session="00-a", state="completed", value=0.5)
    asked = requested({"name": "s", "trials": 5}, "search")
    board = folded([line(asked, "operator"), line(finished, "hyperparameter_specialist")])
    assert "trial 1/5" in drawn(board)


def test_a_terminal_keeps_what_went_wrong(lines: list[dict[str, Any]]):
    stream = io.StringIO()
    with Live(stream) as live:
        for each in lines:
            live.take(each)
        live.take(line(BROKEN, "validator"))
    assert "validator.judge failed 3 times: it broke" in stream.getvalue()
