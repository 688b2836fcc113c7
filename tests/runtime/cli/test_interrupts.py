"""A signal ends a command with 130 and a sentence whenever it comes: during imports, at work, when swallowed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.cli import interrupts
from runtime.cli.exit_codes import conclude

INTERRUPTED_AT = """
import os, signal, sys

class Here:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.{signal})

sys.argv = ["swarm", *{words!r}]
sys.meta_path.insert(0, Here())
from runtime.cli.start import main
main()
"""


def interrupted(module: str, number: str, words: list[str]) -> subprocess.CompletedProcess[str]:
    """A command that gets a signal at the very moment at which it begins to import a module."""
    code = INTERRUPTED_AT.format(module=module, signal=number, words=words)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
@pytest.mark.parametrize(
    ("module", "verb"),
    [
        ("click", "watch"),
        ("runtime.cli.call", "run"),
        ("runtime.cli.run", "wait"),
        ("runtime.home.settings", "watch"),
        ("runtime.log.archive", "wait"),
    ],
)
def test_a_signal_during_imports_ends_the_command_with_130_and_its_sentence(
    tmp_path: Path, module: str, verb: str, number: str
):
    request = tmp_path / "request.yaml"
    request.write_text("data: {source: digits}\nmodel: {architecture: linear}\n")
    words = [verb, str(request) if verb == "run" else "last", "--home", str(tmp_path / "home")]
    done = interrupted(module, number, words)
    # A command that the library has begun is answered on a line of its own.
    assert (done.returncode, done.stdout, done.stderr.lstrip("\n")) == (130, "", "interrupted\n")


def test_a_signal_during_imports_is_json_when_json_was_asked_for(tmp_path: Path):
    done = interrupted("click", "SIGTERM", ["wait", "last", "--json", "--home", str(tmp_path / "home")])
    assert (done.returncode, json.loads(done.stdout)["error"]["code"], done.stderr) == (130, "interrupted", "")


async def _deaf() -> None:
    """Work that swallows the first time it is cancelled, as libraries do now and then."""
    os.kill(os.getpid(), signal.SIGINT)
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        await asyncio.sleep(60)


def test_work_that_swallows_its_cancellation_is_cancelled_once_more(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(interrupts, "_AGAIN", 0.01)
    assert conclude(lambda: interrupts.run(_deaf()), as_json=False) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_what_a_signal_came_out_as_does_not_matter(capsys: pytest.CaptureFixture[str]):
    def wrapped() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except KeyboardInterrupt:
            raise ImportError("half of a module") from None

    assert conclude(wrapped, as_json=False) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_a_command_leaves_the_signals_of_its_process_as_they_were():
    before = [signal.getsignal(number) for number in interrupts.BOTH]
    conclude(lambda: interrupts.run(asyncio.sleep(0)), as_json=False)
    assert [signal.getsignal(number) for number in interrupts.BOTH] == before
