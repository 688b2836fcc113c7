"""What a slip of the hand is answered with: the right exit code, and one sentence with the cure."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
from click.testing import CliRunner, Result

from bus import disk
from contracts.errors import of_system
from contracts.kinds import SESSION_KINDS
from contracts.request import training as exports
from contracts.session import State
from runtime.cli import session_files, sessions
from runtime.cli.agents import misheard
from runtime.cli.exit_codes import conclude
from runtime.cli.main import swarm
from runtime.home.home import LAYOUT, Home
from tests.runtime.recorded_home import RecordedHome


@pytest.fixture
def recorded(tmp_path: Path) -> RecordedHome:
    return RecordedHome(tmp_path / "home")


def run(home: Path, *arguments: str) -> Result:
    return CliRunner().invoke(swarm, [*arguments, "--home", str(home)])


def refused(result: Result, code: int, *words: str) -> None:
    assert result.exit_code == code, result.stderr
    assert result.stderr.startswith("error: "), result.stderr
    assert "\n  hint: " in result.stderr
    assert "defect" not in result.stderr
    assert all(word in result.stderr for word in words), result.stderr


@pytest.mark.parametrize("arguments", [["show"], ["status", "--bad"], ["cancel", "last", "--reason"], ["nothing"]])
def test_a_usage_error_is_one_sentence_and_says_where_help_is(arguments: list[str], tmp_path: Path):
    result = CliRunner().invoke(swarm, arguments)
    refused(result, 2, "--help")
    assert len(result.stderr.splitlines()) == 2


@pytest.mark.parametrize("command", [["wait"], ["watch"], ["export"], ["fork", "--at", "4"], ["prove"]])
@pytest.mark.parametrize("seconds", ["-1", "nan", "inf", "soon"])
def test_a_time_to_wait_is_a_number_of_seconds_from_0_on(command: list[str], seconds: str, tmp_path: Path):
    refused(run(tmp_path, *command, "last", "--timeout", seconds), 2, "seconds")


def test_sessions_are_chosen_by_kinds_and_states_that_there_are(recorded: RecordedHome):
    refused(run(recorded.home.root, "sessions", "--kind", "trainings"), 2, "trainings", "search")
    refused(run(recorded.home.root, "sessions", "--state", "done"), 2, "done", "completed")
    recorded.requested()
    assert "None of the 1 sessions" in run(recorded.home.root, "sessions", "--kind", "audit").stdout


def test_the_words_that_options_take_are_those_of_the_contracts():
    kind = next(option for option in sessions.sessions.params if option.name == "kind")
    assert kind.type.choices == SESSION_KINDS
    assert get_args(State) == sessions.STATES
    assert (exports.FORMATS, exports.QUANTIZATIONS) == (session_files.FORMATS, session_files.QUANTIZATIONS)


OUTPUTS = (
    ["bundle", "last", "-o"],
    ["asyncapi", "-o"],
    ["replay", "last", "--step", "50", "--weights"],
    ["export", "last", "-o"],
)


@pytest.mark.parametrize("arguments", OUTPUTS, ids=lambda words: words[0])
def test_a_file_that_cannot_be_written_is_refused_before_any_work(arguments: list[str], recorded: RecordedHome):
    recorded.trained()
    home = recorded.home.root
    refused(run(home, *arguments, str(home / "none" / "file")), 4, "there is no folder", "none")
    refused(run(home, *arguments, str(home)), 2, "is a folder")


def test_asyncapi_says_where_it_wrote(tmp_path: Path):
    result = run(tmp_path, "asyncapi", "-o", str(tmp_path / "api.json"), "--json")
    assert json.loads(result.stdout) == {"path": str(tmp_path / "api.json")}
    assert json.loads((tmp_path / "api.json").read_bytes())["asyncapi"] == "3.0.0"


READING = (["sessions"], ["show", "last"], ["audit", "last"], ["down"], ["status"], ["up", "-d"], ["dlq"], ["keys"])


@pytest.mark.parametrize("arguments", READING, ids=lambda words: words[0])
def test_a_home_that_is_a_file_is_refused_by_every_command(arguments: list[str], tmp_path: Path):
    (tmp_path / "home").write_text("")
    refused(run(tmp_path / "home", *arguments), 6, "is a file")


@pytest.mark.parametrize("arguments", READING, ids=lambda words: words[0])
def test_a_home_written_by_newer_code_is_refused_by_every_command(arguments: list[str], tmp_path: Path):
    (tmp_path / "layout").write_text(f"{LAYOUT + 1}\n")
    refused(run(tmp_path, *arguments), 6, "layout", "Update")


def test_the_doctor_looks_also_at_a_home_that_is_none(tmp_path: Path):
    (tmp_path / "home").write_text("")
    result = run(tmp_path / "home", "doctor", "--json")
    assert result.exit_code == 1
    assert {"level", "what", "message", "cure"} == set(json.loads(result.stdout)["findings"][0])


def test_a_disk_that_is_full_when_the_home_is_made_does_not_spoil_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(descriptor: int, content: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(disk, "write_all", full)
        refused(run(tmp_path / "home", "up", "-d"), 6, "No space left", "Free space")
    Home(tmp_path / "home").prepare()


@pytest.mark.parametrize(
    ("number", "code"),
    [(errno.EACCES, 6), (errno.EROFS, 6), (errno.ENOSPC, 6), (errno.ENOENT, 4), (errno.ENOTDIR, 2), (errno.EIO, 1)],
)
def test_what_the_system_refuses_about_a_file_is_no_defect_of_ours(
    number: int, code: int, capsys: pytest.CaptureFixture[str]
):
    error = OSError(number, os.strerror(number), "/some/file")

    def refuse() -> None:
        raise ExceptionGroup("tasks", [error])

    assert conclude(refuse, as_json=True) == code
    told = json.loads(capsys.readouterr().out)["error"]
    assert told["path"] == "/some/file"
    assert told["cure"]
    assert of_system(OSError("no file is named")) is None


def test_a_home_that_is_not_ours_to_read_is_told_in_a_sentence(recorded: RecordedHome):
    recorded.trained()
    # Root may read everything until it gives that up.
    (recorded.home.keys).chmod(0o000)
    command = [sys.executable, "-P", "-m", "runtime.cli.start", "show", "last", "--home", str(recorded.home.root)]
    drop = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all"] if os.getuid() == 0 else []
    done = subprocess.run([*drop, *command], capture_output=True, text=True, check=False)
    (recorded.home.keys).chmod(0o700)
    assert done.returncode == 6, done
    assert "root.pub" in done.stderr
    assert "Permission denied" in done.stderr
    assert "hint: " in done.stderr


def test_a_misspelt_event_that_a_guest_is_to_hear_is_noticed():
    heard = ["resources.sumarised", "window.recorded", "rumour.spread"]
    assert list(misheard(heard)) == [("resources.sumarised", "resources.summarised")]
