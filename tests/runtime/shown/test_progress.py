"""What a watcher sees: plain lines in a pipe, a board on a terminal."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from runtime.records.archive import Archive
from runtime.shown.progress import Board, Drawn, Live, Plain, progress
from tests.runtime.recorded_home import RecordedHome


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    recorded = RecordedHome(Path(tmp_path_factory.mktemp("home")))
    return list(Archive(recorded.home).events(recorded.trained()))


def drawn(board: Board, width: int = 100) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(Drawn(board))
    return console.file.getvalue()  # type: ignore[attr-defined]


def folded(lines: list[dict[str, Any]]) -> Board:
    board = Board()
    for line in lines:
        board.take(line)
    return board


def test_a_pipe_gets_one_line_per_fact_and_no_escape_codes(lines: list[dict[str, Any]]):
    stream = io.StringIO()
    with progress(stream, live=False) as shown:
        for line in lines:
            shown.take(line)
    text = stream.getvalue()
    assert isinstance(shown, Plain)
    assert "\x1b" not in text
    assert "trainer: epoch 1 step 50: val_loss=0.5" in text
    assert "steps 1..50" not in text


def test_checkpoints_that_do_not_stay_are_not_worth_a_line(lines: list[dict[str, Any]]):
    stored = next(line for line in lines if line["name"] == "checkpoint.stored")
    told: list[str] = []
    Plain(told.append).take(stored)
    Plain(told.append).take(stored | {"data": stored["data"] | {"kept_as": []}})
    assert len(told) == 1


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
    request = {"name": "s", "trials": 5}
    asked = {"kind": "search", "request": request, "asked_by": "me"}
    finished = {"number": 1, "session": "00-a", "state": "completed", "value": "0x1p-1"}
    board = folded(
        [
            {"name": "session.requested", "lane": "operator", "data": asked},
            {"name": "trial.finished", "lane": "hyperparameter_specialist", "data": finished},
        ]
    )
    assert "trial 1/5" in drawn(board)


def test_a_terminal_keeps_what_went_wrong(lines: list[dict[str, Any]]):
    stream = io.StringIO()
    failed = {"role": "validator", "handler": "judge", "attempts": 3, "error": "it broke", "cure": ""}
    with Live(stream) as live:
        for line in lines:
            live.take(line)
        live.take({"name": "handler.failed", "lane": "validator", "time": lines[0]["time"], "data": failed})
    assert "validator.judge failed 3 times: it broke" in stream.getvalue()
