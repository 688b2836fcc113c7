"""The outer shape of the command: what help costs, what errors look like, which code each ends with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from contracts.errors import SwarmError
from runtime.cli.exit_codes import conclude
from runtime.cli.main import COMMANDS, swarm

HEAVY = {"torch", "pydantic", "rich", "anyio", "nats", "numpy", "structlog", "yaml"}
EVERY_HELP = f"""
import io, sys, contextlib
from runtime.cli.main import swarm
for arguments in (["--help"], *(name.split() + ["--help"] for name in {list(COMMANDS)!r})):
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert swarm.main(arguments, standalone_mode=False) == 0
    assert "Usage: swarm" in out.getvalue(), arguments
print(*sorted({{name.partition(".")[0] for name in sys.modules}}))
"""


def run(*arguments: str, **rest: object) -> Result:
    return CliRunner().invoke(swarm, list(arguments), **rest)  # type: ignore[arg-type]


def error_of(result: Result) -> dict[str, str]:
    """The error object on the last line of stdout."""
    return json.loads(result.stdout.splitlines()[-1])["error"]


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=True)


def test_help_of_every_command_loads_nothing_heavy():
    loaded = python("-c", EVERY_HELP).stdout.split()
    assert not HEAVY.intersection(loaded)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where compiled modules are kept, whatever this process was told about keeping them."""
    place: Path = tmp_path_factory.mktemp("compiled")
    return place


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["--version"]])
def test_help_costs_little_more_than_the_library_that_it_is_written_with(arguments: list[str], compiled: Path):
    """In processor time; what 100 ms are depends on the machine, and `benchmarks/startup.py` has them."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = str(compiled)

    def cost(*words: str) -> float:
        nowhere = (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)
        pid = os.posix_spawn(sys.executable, [sys.executable, *words], environment, file_actions=[nowhere])
        _, status, used = os.wait4(pid, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        return used.ru_utime + used.ru_stime

    # The cheapest of several, in alternation: a busy machine makes any one of them dearer.
    turns = [(cost("-m", "runtime.cli.start", *arguments), cost("-c", "import click")) for _ in range(12)]
    ours, library = map(min, zip(*turns, strict=True))
    assert ours < 1.8 * library


@pytest.mark.parametrize("name", ["agent", "config", "dlq", "keys", "workload"])
def test_what_each_command_of_a_group_does_fits_its_line(name: str):
    listed = run(name, "--help").stdout.partition("Commands:")[2].strip().splitlines()
    assert len(listed) >= 2
    assert not [line for line in listed if "..." in line]
    assert all(line.endswith(".") for line in listed)


def test_help_lists_every_command_with_what_it_does():
    text = run("--help").stdout
    for name, entry in COMMANDS.items():
        assert f"  {name}" in text
        assert entry.help.split()[0] in text


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_takes_the_shared_options(name: str):
    text = run(name, "--help").stdout
    for option in ("--home", "--url", "--creds", "--json"):
        assert option in text


def test_a_misspelt_command_is_answered_with_the_nearest():
    result = run("sesions")
    assert result.exit_code == 2
    assert "Did you mean 'sessions'?" in result.stderr


def test_a_misspelt_option_is_a_usage_error():
    result = run("status", "--hme", "x")
    assert result.exit_code == 2
    assert "--home" in result.stderr


@pytest.mark.parametrize("arguments", [["nothing"], ["show"], ["status", "--bad"], ["dlq", "redrive"], []])
def test_usage_errors_are_json_when_json_was_asked_for(arguments: list[str]):
    result = run("--json", *arguments)
    assert result.exit_code == 2
    assert error_of(result)["code"] == "usage"
    assert set(error_of(result)) == {"code", "message", "path", "cure"}


def test_options_may_stand_before_the_command(tmp_path: Path):
    result = run("--home", str(tmp_path / "none"), "--json", "status")
    assert result.exit_code == 5
    assert error_of(result)["code"] == "unreachable"


def test_an_option_of_the_command_wins_over_one_before_it(tmp_path: Path):
    result = run("--home", str(tmp_path / "one"), "status", "--home", str(tmp_path / "other"))
    assert "other" in result.stderr


@pytest.mark.parametrize(
    "arguments", [["status"], ["submit", "{request}"], ["pause", "last"], ["agent", "new", "ant"], ["tune", "{search}"]]
)
def test_without_a_swarm_the_exit_code_is_5_and_the_cure_is_up(arguments: list[str], tmp_path: Path):
    (tmp_path / "request.yaml").write_text(
        "data: {source: digits}\nmodel: {architecture: linear}\noptimizer: {type: adam}\n"
    )
    search = "base: request.yaml\nspace: {optimizer.learning_rate: {type: float, low: 1e-4, high: 1e-1, log: true}}\n"
    (tmp_path / "search.yaml").write_text(search)
    named = [one.format(request=tmp_path / "request.yaml", search=tmp_path / "search.yaml") for one in arguments]
    extra = ["--detach"] if arguments[0] == "tune" else []
    result = run(*named, *extra, "--home", str(tmp_path / "none"))
    assert result.exit_code == 5, result.stderr
    assert "swarm up" in result.stderr


def test_text_errors_go_to_stderr_and_leave_stdout_empty(tmp_path: Path):
    result = run("show", "last", "--home", str(tmp_path))
    assert result.exit_code == 4
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert "hint: " in result.stderr


def test_every_problem_of_a_request_is_shown_with_path_and_cure(tmp_path: Path):
    path = tmp_path / "request.yaml"
    path.write_text("data: {source: digits}\nmodel: {architecture: mlpp}\ntrainig: {epochs: 3}\n")
    text = run("submit", str(path)).stderr
    assert "2 problems" in text
    assert "model.architecture" in text
    assert "Did you mean 'training'?" in text
    result = run("submit", str(path), "--json")
    assert result.exit_code == 2
    assert [one["path"] for one in json.loads(result.stdout)["error"]["problems"]] == ["model.architecture", "trainig"]


def test_an_interrupt_ends_with_130(capsys: pytest.CaptureFixture[str]):
    def interrupted() -> None:
        raise KeyboardInterrupt

    assert conclude(interrupted, as_json=False) == 130
    assert conclude(interrupted, as_json=True) == 130
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "interrupted"


def test_errors_that_tasks_raised_together_keep_their_exit_code():
    def several() -> None:
        raise ExceptionGroup("tasks", [ValueError("other"), ExceptionGroup("inner", [_Refusal("no", cure="ask")])])

    assert conclude(several, as_json=False) == 6


class _Refusal(SwarmError):
    exit_code = 6


def test_a_defect_of_ours_is_one_sentence_and_1(capsys: pytest.CaptureFixture[str]):
    assert conclude(lambda: 1 / 0, as_json=False) == 1
    text = capsys.readouterr().err
    assert "ZeroDivisionError" in text
    assert "test_main.py" in text
    assert "Traceback" not in text


def test_a_closed_pipe_is_no_error():
    command = f"{sys.executable} -m runtime.cli.start config schema | head -c 10; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1].endswith("0")
    assert done.stderr == ""


def test_no_color_is_respected(tmp_path: Path):
    arguments = ["show", "last", "--home", str(tmp_path)]
    assert "\x1b[" in run(*arguments, color=True).stderr
    assert "\x1b[" not in run(*arguments, color=True, env={"NO_COLOR": "1"}).stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_its_completion(shell: str):
    assert "_SWARM_COMPLETE" in run("completion", shell).stdout


def test_sessions_are_completed_from_the_home(tmp_path: Path):
    (tmp_path / "sessions" / "00-abc").mkdir(parents=True)
    environment = {"COMP_WORDS": "swarm show 00", "COMP_CWORD": "2", "_SWARM_COMPLETE": "bash_complete"}
    command = [sys.executable, "-c", "from runtime.cli.main import main; main()"]
    done = subprocess.run(
        command,
        env=os.environ | environment | {"SWARM_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["plain,00-abc"]
