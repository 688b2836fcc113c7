"""The trials of a search, from its log alone: as a table, live, as CSV, and as a request that trains one of them."""

from __future__ import annotations

import csv
import io
import json
import math
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from rich.console import Console

import stigmergy
from contracts.event import Event
from contracts.hyperparameter_specialist import SearchCancelled, TrialFinished, TrialPaused, TrialStarted
from contracts.request import read_request
from contracts.request.search import read_search
from runtime.audit.log_check import make_bundle
from runtime.cli.main import swarm
from runtime.log.archive import Archive
from runtime.views import html, markdown, terminal
from runtime.views.notebook import NotebookProgress
from runtime.views.progress import Board, PlainProgress, RichBoard
from runtime.views.trials import TrialsAnswer, TrialTable, train_command, trials_page
from tests.contracts.told import line, requested
from tests.runtime.recorded_home import RecordedHome
from tests.runtime.searched_home import BASE, HYPER, RATE, SPACE, clock, finished_search, halved, searched
from tests.runtime.views.test_blocks import HOSTILE, OBEYED


@pytest.fixture
def recorded(tmp_path: Path) -> RecordedHome:
    return RecordedHome(tmp_path / "home")


def run(recorded: RecordedHome, *arguments: str) -> Result:
    return CliRunner().invoke(swarm, [*arguments, "--home", str(recorded.home.root)])


def asked(recorded: RecordedHome, *arguments: str) -> dict[str, Any]:
    result = run(recorded, *arguments, "--json")
    assert result.exit_code == 0, result.stderr
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def request(**changes: Any) -> dict[str, Any]:
    return read_search({"name": "a search", "base": BASE, "space": SPACE, "trials": 4} | changes).resolved()


def table_of(*told: tuple[Event, float], **changes: Any) -> TrialTable:
    table = TrialTable()
    table.take(requested(request(**changes), "search"), clock(0))
    for event, second in told:
        table.take(event, clock(second))
    return table


# The table


def test_a_trial_at_a_rung_waits_and_then_goes_on_or_stops():
    told = list(halved())
    waiting = table_of(*told[:8])
    assert {row["state"] for row in waiting.rows.values()} == {"waiting"}
    assert waiting.rows[1]["rungs"] == [{"rung": 0, "epochs": 4, "value": 2.0, "goes_on": None}]
    decided = table_of(*told[:9])
    assert [row["state"] for row in decided.rows.values()] == ["running", "stopped", "stopped", "stopped"]
    assert [row["rungs"][0]["goes_on"] for row in decided.rows.values()] == [True, False, False, False]
    ended = table_of(*told)
    assert [row["value"] for row in ended.rows.values()] == [0.5, None, None, None]
    assert [row["epochs"] for row in ended.rows.values()] == [16, 4, 4, 4]
    assert ended.best == 0


def test_what_a_trial_waits_at_a_rung_costs_nothing():
    rows = table_of(*halved()).rows
    assert [row["seconds"] for row in rows.values()] == [0.5 + 4.0, 0.5, 0.5, 0.5]


@pytest.mark.parametrize(
    ("changes", "values", "best"),
    [
        ({}, [0.5, 0.25, 0.75], 1),
        ({"metric": "val_accuracy"}, [0.5, 0.25, 0.75], 2),
        ({}, [0.5, 0.25, 0.25], 1),
        ({}, [None, math.inf, 0.75], 2),
        ({}, [None, math.nan, None], None),
    ],
)
def test_the_best_is_that_of_the_search_and_of_equals_the_first(
    changes: dict[str, Any], values: list[float | None], best: int | None
):
    about: Any = dict(session="s", parameters={RATE: 0.1})
    told: list[tuple[Event, float]] = [(TrialStarted(number=n, **about), n) for n in range(len(values))]
    for number, value in [*enumerate(values)][::-1]:
        told.append((TrialFinished(number=number, session="s", state="completed", value=value), 9))
    assert table_of(*told, **changes).best == best


def test_trials_of_a_search_that_is_cancelled_are_cancelled():
    told = list(halved())[:3]
    table = table_of(*told, (SearchCancelled(reason="enough", trials=0), 20.0))
    assert [row["state"] for row in table.rows.values()] == ["cancelled", "cancelled"]


@pytest.mark.parametrize(
    ("changes", "planned"), [({}, 4), ({"space": {"model.hidden": [[8], [16]]}}, 2), ({"sampler": "random"}, 4)]
)
def test_a_grid_has_as_many_trials_as_it_has_points(changes: dict[str, Any], planned: int):
    assert table_of(**changes).planned == planned


def test_events_about_trials_that_never_began_change_nothing():
    lost = TrialFinished(number=7, session="s", state="completed", value=0.1)
    table = table_of((lost, 1.0), (TrialPaused(number=8, rung=0, epochs=1), 2.0), *halved())
    assert sorted(table.rows) == [0, 1, 2, 3]
    assert table.best == 0


# Live


def lines(**changes: Any) -> list[dict[str, Any]]:
    told = [line(requested(request(**changes), "search"), "operator") | {"time": clock(0)}]
    return told + [line(event, HYPER) | {"time": clock(second)} for event, second in halved()]


def drawn(board: Board, width: int, height: int = 40, **how: Any) -> str:
    console = Console(file=io.StringIO(), width=width, height=height, **how)
    console.print(RichBoard(board))
    return console.file.getvalue()  # type: ignore[attr-defined]


def folded(told: list[dict[str, Any]]) -> Board:
    board, shown = Board(), NotebookProgress(lambda html, text: None)
    shown.board = board
    for each in told:
        shown.take(each)
    return board


def test_a_search_is_watched_as_a_table_of_its_trials():
    text = drawn(folded(lines()[:10]), 100, color_system=None)
    assert "trial 0/4" in text
    rows = [row.split() for row in text.splitlines()]
    assert ["trial", "state", "value", "epochs", "time", "rung", "parameters"] in rows
    assert ["0", "running", "(1)", "4", "0.5", "s", "0", RATE, "0.1"] in rows
    assert ["1", "stopped", "(2)", "4", "0.5", "s", "0", RATE, "0.05"] in rows
    ended = drawn(folded(lines()), 100, color_system=None)
    assert "0.5 (best)" in ended


@pytest.mark.parametrize("width", [20, 40, 59, 60, 200])
def test_the_table_fits_any_terminal_and_says_the_best_without_colours(width: int):
    text = drawn(folded(lines()), width, color_system=None)
    assert all(len(row) <= width for row in text.splitlines())
    assert "\x1b" not in text
    assert ("epochs" in text) == (width >= 60)
    assert width < 40 or "(best)" in text


def test_the_table_is_no_longer_than_the_terminal():
    started = [(TrialStarted(number=n, session="s", parameters={RATE: 0.1}), n) for n in range(500)]
    finished = [TrialFinished(number=n, session="s", state="completed", value=abs(n - 3)) for n in range(499)]
    board = folded([lines()[0], *(line(event, HYPER) for event, _ in started), *(line(one, HYPER) for one in finished)])
    rows = drawn(board, 80, 12, color_system=None).splitlines()
    assert len(rows) <= 12
    assert "and 495 more" in rows[-1]
    assert any("0 (best)" in row for row in rows), "the best is shown, however old"
    assert any(" running " in row for row in rows), "and what runs"


def test_a_pipe_is_told_which_trial_is_the_best_so_far():
    told: list[str] = []
    shown = PlainProgress(told.append)
    first = [(TrialStarted(number=n, session="s", parameters={RATE: 0.1}), n) for n in range(3)]
    ends = [
        TrialFinished(number=n, session="s", state="completed", value=v, epochs=2) for n, v in ((0, 3), (2, 1), (1, 2))
    ]
    for each in (lines()[0], *(line(event, HYPER) for event, _ in first), *(line(event, HYPER) for event in ends)):
        shown.take(each)
    ended = [text.partition(": ")[2] for text in told if "completed" in text]
    assert ended == [
        "trial 0 completed: 3 after 2 epochs, the best so far",
        "trial 2 completed: 1 after 2 epochs, the best so far",
        "trial 1 completed: 2 after 2 epochs",
    ]


# `swarm trials`


def test_trials_come_from_the_log_alone(recorded: RecordedHome):
    session = finished_search(recorded, 12)
    first, page = asked(recorded, "trials", session), run(recorded, "trials", "last-search").stdout
    run(recorded, "sessions")
    assert (recorded.home.session(session) / "summary.json").exists()
    kept = {recorded.home.log(session), recorded.home.log(recorded.ring)}
    for folder in [*recorded.home.sessions.iterdir()]:
        for path in folder.iterdir():
            if path not in kept:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    shutil.rmtree(recorded.home.root / "work", ignore_errors=True)
    assert asked(recorded, "trials", session) == first
    assert run(recorded, "trials", "last-search").stdout == page
    assert len(first["trials"]) == 12
    assert first["trials"][0].keys() == stigmergy.TrialRow.__annotations__.keys()
    assert first.keys() == TrialsAnswer.__annotations__.keys()


def test_programs_and_the_command_line_are_told_the_same(recorded: RecordedHome):
    session = finished_search(recorded, 5)
    answer = stigmergy.trials(session, home=recorded.home.root)
    assert json.loads(json.dumps(answer)) == asked(recorded, "trials", session)
    best = min((row for row in answer["trials"] if row["value"] is not None), key=lambda row: row["value"] or 0)
    assert answer["best"] == best["number"]


def test_trials_are_ordered_and_limited(recorded: RecordedHome):
    finished_search(recorded, 20, metric="val_accuracy")
    values = [row["value"] for row in asked(recorded, "trials", "last-search", "--sort", "value")["trials"]]
    known = [value for value in values if value is not None]
    assert known == sorted(known, reverse=True)
    assert values == [*known, None, None]
    assert len(asked(recorded, "trials", "last-search", "-n", "3")["trials"]) == 3
    epochs = [row["epochs"] for row in asked(recorded, "trials", "last-search", "--sort", "epochs")["trials"]]
    assert epochs == sorted(epochs, reverse=True)


def test_csv_has_a_column_for_each_parameter(recorded: RecordedHome, tmp_path: Path):
    session = finished_search(recorded, 4)
    text = run(recorded, "trials", session, "--csv").stdout
    rows, answer = list(csv.DictReader(io.StringIO(text))), asked(recorded, "trials", session)
    assert [float(row[RATE]) for row in rows] == [row["parameters"][RATE] for row in answer["trials"]]
    assert [json.loads(row["model.hidden"]) for row in rows] == [
        r["parameters"]["model.hidden"] for r in answer["trials"]
    ]
    file = tmp_path / "trials.csv"
    assert run(recorded, "trials", session, "--csv", "-o", str(file)).exit_code == 0
    assert file.read_text() == text


def test_a_bundle_has_the_same_trials(recorded: RecordedHome, tmp_path: Path):
    session = finished_search(recorded, 5)
    recorded.say(session, "ledger", recorded.seal(session))
    bundle = tmp_path / "search.bundle"
    make_bundle(Archive(recorded.home), session, recorded.blobs, bundle)
    told, of_home = asked(recorded, "trials", str(bundle)), asked(recorded, "trials", session)
    assert told["trials"] == of_home["trials"]
    assert str(bundle) in told["train"]
    assert stigmergy.trials(bundle, home=tmp_path / "nowhere")["best"] == told["best"]
    written = run(recorded, "trials", str(bundle), "--request", "best")
    assert "It came in a bundle" in written.stdout


def test_what_has_no_trials_says_so(recorded: RecordedHome):
    training = recorded.trained()
    refused = run(recorded, "trials", training)
    assert (refused.exit_code, "of the kind 'training'" in refused.stderr) == (2, True)
    empty = searched(recorded)
    assert "of 20" in run(recorded, "trials", empty).stdout
    missing = run(recorded, "trials", empty, "--request", "best")
    assert (missing.exit_code, "no trial has a value yet" in missing.stderr) == (4, True)
    assert run(recorded, "trials", empty, "--request", "3").exit_code == 4


def test_a_thousand_trials_take_less_than_a_second_of_a_processor_and_a_page_of_bounded_size(
    recorded: RecordedHome, tmp_path: Path
):
    session = finished_search(recorded, 1000)
    begun = time.process_time()
    result = run(recorded, "trials", session)
    spent = time.process_time() - begun
    assert "600 of 1,000 rows are left out here" in result.stdout
    assert spent < 1.0
    page = tmp_path / "page.html"
    assert run(recorded, "report", session, "--out", str(page)).exit_code == 0
    assert page.stat().st_size < 1_000_000


def test_names_out_of_a_log_are_harmless(recorded: RecordedHome):
    session = searched(recorded, name="x")
    told = [
        TrialStarted(number=0, session=HOSTILE, parameters={HOSTILE: HOSTILE, "=cmd()": "=cmd()"}),
        TrialFinished(number=0, session=HOSTILE, state=HOSTILE, value=0.5),
    ]
    recorded.say(session, HYPER, *told)
    answer = stigmergy.trials(session, home=recorded.home.root)
    page = trials_page(answer, answer["trials"])
    texts = [terminal.render(page, 80), markdown.render(page), html.render(page)]
    texts += [run(recorded, "trials", session, *more).stdout for more in ([], ["--csv"], ["--json"])]
    for text in texts:
        assert not OBEYED.search(text)
    assert "<script>" not in texts[2]
    rows = list(csv.reader(io.StringIO(texts[4])))
    assert len(rows) == 2
    assert "'=cmd()" in rows[0]
    assert rows[1][-1] == "'=cmd()"
    board = folded([lines()[0], *(line(event, HYPER) for event in told)])
    assert not OBEYED.search(drawn(board, 80, color_system=None))


def test_what_is_no_number_beside_one_of_any_size_is_null(recorded: RecordedHome):
    session = searched(recorded)
    started = TrialStarted(number=0, session="00-0", parameters={"huge": 10**30})
    values = {"val_loss": math.nan, "val_accuracy": 0.5}
    ended = TrialFinished(number=0, session="00-0", state="completed", value=None, values=values)
    recorded.say(session, HYPER, started, ended)
    told = run(recorded, "trials", session, "--json").stdout
    assert "NaN" not in told
    (trial,) = json.loads(told)["trials"]
    assert trial["parameters"] == {"huge": 10**30}
    assert trial["values"] == {"val_loss": None, "val_accuracy": 0.5}


@pytest.mark.parametrize("value", [10**400, [10**30], -(10**19)], ids=["huge", "in a list", "negative"])
def test_whole_numbers_of_a_log_may_have_any_size(recorded: RecordedHome, tmp_path: Path, value: Any):
    session = searched(recorded)
    for number in range(12):
        about: Any = dict(number=number, session=f"00-{number}")
        started = TrialStarted(**about, parameters={"strange": value, "plain": number})
        ended = TrialFinished(**about, state="completed", value=float(number))
        recorded.say(session, HYPER, started, ended)
    assert asked(recorded, "trials", session)["trials"][0]["parameters"]["strange"] == value
    for more in (["--csv"], [], ["--out", str(tmp_path / "page.html")]):
        assert run(recorded, "trials", session, *more).exit_code == 0
    assert run(recorded, "report", session, "--out", str(tmp_path / "report.html")).exit_code == 0


# The request of a trial


def test_the_request_of_a_trial_has_its_parameters_no_rungs_and_the_export_of_the_base(recorded: RecordedHome):
    base = BASE | {"export": {"formats": ["onnx"]}}
    session = finished_search(recorded, 3, base=base, halving={"first_epochs": 4})
    answer = asked(recorded, "trials", session, "--request", "1")["request"]
    resolved = read_request(answer)
    chosen = asked(recorded, "trials", session)["trials"][1]["parameters"]
    assert resolved.optimizer.learning_rate == chosen[RATE]
    assert not resolved.training.pauses
    assert resolved.export.formats == ("onnx",)
    printed = run(recorded, "trials", session, "--request", "1").stdout
    assert printed.startswith(f"# Trial 1 of search {session}")


def test_the_command_names_the_home_and_lies_beside_rows_in_files(recorded: RecordedHome):
    session = finished_search(recorded, 3)
    command = asked(recorded, "trials", session)["train"]
    home = f"--home {recorded.home.root}"
    assert command == f"swarm {home} trials {session} --request best | swarm {home} run -"
    beside = train_command("s", "best", "/data/my rows/a.csv")
    file = "'/data/my rows/trial-best.yaml'"
    assert beside == f"swarm trials s --request best -o {file} --force && swarm run {file}"
    shown = run(recorded, "show", session).stdout
    assert command in " ".join(shown.split())
