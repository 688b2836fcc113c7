from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runtime.commands.asyncapi import document

pytestmark = [pytest.mark.foreign, pytest.mark.timeout(300)]

EXAMPLE = Path(__file__).parents[2] / "examples" / "node"
TOOLS = Path(__file__).parent


def command(*words: str, home: Path) -> Any:
    """The JSON object that a `swarm` command prints."""
    program = [sys.executable, "-m", "runtime.cli.start", *words, "--json"]
    environment = os.environ | {"SWARM_HOME": str(home)}
    done = subprocess.run(program, capture_output=True, text=True, timeout=120, check=False, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def node(*words: str | Path, given: str = "") -> subprocess.CompletedProcess[str]:
    """A Node program's end. A missing tool is a failure: `sh tests/tools/install.sh`."""
    program = shutil.which("node")
    assert program, "there is no node; run: sh tests/tools/install.sh"
    return subprocess.run(
        [program, *map(str, words)], input=given, capture_output=True, text=True, timeout=200, check=False
    )


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    home = tmp_path_factory.mktemp("swarm")
    command("up", "-d", home=home)
    yield home
    command("down", home=home)


@pytest.fixture(scope="module")
def creds(home: Path) -> Path:
    return Path(command("status", home=home)["creds"])


def test_a_program_in_another_language_trains_and_follows_every_event(home: Path, creds: Path) -> None:
    done = node(EXAMPLE / "train.mjs", creds)
    assert done.returncode == 0, done.stdout + done.stderr
    first, *lines, last = done.stdout.splitlines()
    session = first.removeprefix("session ")
    seen = [(int(number), lane, name) for number, lane, name in (line.split() for line in lines)]
    assert [number for number, _, _ in seen] == list(range(1, len(seen) + 1))
    assert seen[0][1:] == ("operator", "session.requested")
    assert seen[-1][1:] == ("ledger", "session.sealed")
    assert ("exporter", "model.exported") in {(lane, name) for _, lane, name in seen}
    assert last.startswith("completed")
    shown = command("show", session, home=home)
    assert shown["state"] == "completed"
    assert shown["metrics"] == json.loads(last.removeprefix("completed "))
    (model,) = [one for one in shown["artifacts"] if one["kind"] == "model"]
    assert Path(model["path"]).stat().st_size == model["bytes"]


def test_a_request_with_several_mistakes_is_answered_with_all_of_them(tmp_path: Path, creds: Path) -> None:
    request = tmp_path / "request.json"
    request.write_text(
        json.dumps({"data": {"source": "digit"}, "model": {"architecture": "mlp", "hiden": [8]}, "epochs": 3})
    )
    done = node(EXAMPLE / "train.mjs", creds, request)
    assert done.returncode == 2
    assert re.search(r"data\.source: .*Did you mean 'digits'", done.stderr)
    assert re.search(r"model\.hiden: .*Did you mean 'hidden'", done.stderr)
    assert "epochs: unknown key" in done.stderr


def test_what_is_no_request_at_all_is_answered_in_one_sentence(tmp_path: Path, creds: Path) -> None:
    request = tmp_path / "request.json"
    request.write_text('{"data": ')
    done = node(EXAMPLE / "train.mjs", creds, request)
    assert done.returncode == 2
    assert "not JSON" in done.stderr


def test_every_reply_of_the_desk_is_what_the_document_says(home: Path, creds: Path) -> None:
    asked = [
        ("sessions", {}),
        ("session", {"session": "last"}),
        ("events", {"session": "last", "limit": 500}),
        ("status", {}),
        ("dlq", {}),
        ("cancel", {"session": "last"}),
        ("train", {"data": {"source": "digit"}}),
        ("redrive", {"failure": "none"}),
    ]
    told = node(TOOLS / "ask.mjs", creds, given=json.dumps(asked))
    assert told.returncode == 0, told.stderr
    samples = [
        {"message": f"{verb}.reply", "payload": reply}
        for (verb, _), reply in zip(asked, json.loads(told.stdout), strict=True)
    ]
    judged = node(TOOLS / "check_messages.mjs", given=json.dumps({"document": document(), "samples": samples}))
    assert judged.returncode == 0, judged.stderr
    assert json.loads(judged.stdout) == {"checked": len(asked), "failures": []}


def test_a_client_may_ask_and_read_and_cannot_write_a_fact(creds: Path) -> None:
    told = node(TOOLS / "forge.mjs", creds)
    assert told.returncode == 0, told.stderr
    assert "permissions violation" in told.stdout.lower()
