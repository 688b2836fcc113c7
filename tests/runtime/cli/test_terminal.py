"""What others wrote reaches a terminal without what a terminal would obey; our own styles do."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
import structlog
from click.testing import CliRunner

from contracts.errors import Failed
from runtime.bundle.container import Container, write_container
from runtime.cli import agents, host, output
from runtime.cli.call import command
from runtime.cli.exit_codes import conclude
from runtime.cli.main import swarm
from runtime.cli.output import cell, plain, render, style
from runtime.cli.pages import page_text
from runtime.host import logs
from runtime.host.checkup import CheckResult
from runtime.views.answer_pages import problem_figures
from runtime.views.blocks import Page
from runtime.views.formatting import one_line, printable
from runtime.views.progress import Board, RichBoard
from runtime.views.sentences import sentence
from tests.contracts.told import requested
from tests.runtime.recorded_home import RecordedHome

HOSTILE = "x\x1b[2K\x1b[1Apass\x9b31m\x07\x7f\u202egnp.exe\u2066\rverdict"
OBEYED = [*map(chr, range(9)), *map(chr, range(11, 32)), *map(chr, range(127, 160)), *"\u202a\u202e\u2066\u2069\u200f"]
FORGED = "a\nverdict  PASS"


def harmless(text: str) -> bool:
    return not any(letter in text for letter in OBEYED)


@pytest.mark.parametrize("letter", OBEYED, ids=ascii)
def test_no_character_that_a_terminal_obeys_is_written(letter: str):
    assert render(f"a{letter}b") == printable(f"a{letter}b") == "a\ufffdb"


def test_our_styles_are_written_and_those_of_strangers_within_them_are_not():
    assert render(style("done", fg="green")) == click.style("done", fg="green")
    assert render(style(HOSTILE, fg="green")).count("\x1b") == 2
    assert harmless(plain(style(HOSTILE)))


def test_a_style_in_a_cell_stays_and_a_new_line_in_it_does_not():
    assert plain(cell(f"{style('yes', bold=True)} {FORGED}")) == "yes a verdict  PASS"


def test_letters_of_every_script_stay():
    told = "Grüße, 学習, ok, ✓ ±0"
    assert render(told) == one_line(told) == told


LETTER = ("failure", "session", "role", "handler", "error")
VOID = ("reason", "subject", "detail")
PAGES: list[Callable[[str], str]] = [
    lambda text: host.finding_line(CheckResult("fail", "logs", text)),
    lambda text: output.pairs([("name", text)]),
    lambda text: output.table(("head",), [[text]]),
    lambda text: page_text(
        Page(text, text, (problem_figures({"code": text, "message": text, "cure": text}),)), title=True
    ),
    lambda text: agents.failures_page(
        {"letters": [dict.fromkeys(LETTER, text)], "voids": [{"seq": 1, **dict.fromkeys(VOID, text)}]}
    ),
]


@pytest.mark.parametrize("page", PAGES)
def test_a_subject_and_an_error_of_a_guest_stand_on_one_harmless_line(page: Callable[[str], str]):
    assert harmless(plain(page(HOSTILE)))
    assert "\nverdict" not in render(page(FORGED))


def test_every_text_of_a_command_and_its_notes_are_harmless_and_json_holds_the_same_value():
    @command("tell")
    def tell(call: Any) -> None:
        call.note(HOSTILE)
        call.result({"name": HOSTILE}, HOSTILE)

    told = CliRunner().invoke(tell, [], color=True)
    assert harmless(told.stdout)
    assert harmless(told.stderr)
    spoken = CliRunner().invoke(tell, ["--json"], color=True).stdout
    assert harmless(spoken)
    assert json.loads(spoken) == {"name": HOSTILE}


ERRORS = [Failed(f"{HOSTILE}{FORGED}", cure=HOSTILE), ValueError(HOSTILE), click.UsageError(HOSTILE)]


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("as_json", [True, False])
def test_every_error_is_harmless(error: Exception, as_json: bool, capsys: pytest.CaptureFixture[str]):
    def fail() -> None:
        raise error

    assert conclude(fail, as_json=as_json) != 0
    out, err = capsys.readouterr()
    assert harmless(out + err)
    assert "\nverdict" not in out + err
    assert not as_json or "\x9b" in json.loads(out)["error"]["message"]


def test_a_name_of_a_session_is_harmless_in_sentences_and_on_the_live_board():
    from rich.console import Console

    asked = requested({"name": HOSTILE}).model_copy(update={"asked_by": HOSTILE})
    assert harmless(sentence(asked))
    board, screen = Board(), io.StringIO()
    board.take("operator", asked)
    Console(file=screen, width=200, color_system=None).print(RichBoard(board))
    assert harmless(screen.getvalue())


def test_the_names_in_a_hostile_bundle_repaint_no_verdict(tmp_path: Path):
    recorded, out, evil = RecordedHome(tmp_path / "home"), tmp_path / "b.zip", tmp_path / "evil.zip"
    options = ["--home", str(recorded.home.root)]
    made = CliRunner().invoke(swarm, ["bundle", recorded.trained(), "-o", str(out), *options])
    assert made.exit_code == 0, made.output
    honest = Container(out)
    write_container(evil, [*((name, bytes(honest.read(name))) for name in honest.members), (f"{HOSTILE}{FORGED}", b"")])
    told = CliRunner().invoke(swarm, ["audit", str(evil), *options], color=True)
    assert told.exit_code == 3
    assert "verdict" in told.output
    assert harmless(re.sub("\x1b\\[[0-9]+m", "", told.output))
    assert "\nverdict  PASS" not in told.output


@pytest.mark.parametrize("as_json", [True, False])
def test_the_lines_of_the_host_are_harmless(as_json: bool, monkeypatch: pytest.MonkeyPatch):
    written = io.StringIO()
    monkeypatch.setattr("sys.stderr", written)
    logs.configure("info", as_json=as_json)
    try:
        structlog.get_logger().info(HOSTILE, subject=HOSTILE, **{HOSTILE: Path(HOSTILE)})
    finally:
        structlog.reset_defaults()
    assert harmless(written.getvalue())
    assert written.getvalue().count("\n") == 1
