"""`--here`: the same agents in one process without a server, for the same weights, and breakpoints are reached."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from contracts.trainer import TrainingClaimed
from runtime.home.home import Home
from runtime.host.local_swarm import home_lock
from runtime.log.archive import Archive
from tests.harness import small_request
from tests.runtime.strangers import Place, environment, place, program

REQUEST = small_request(export={"formats": ["safetensors"]}) | {"mode": "production"}

STOPS = """
import os

from torch import nn

from stigmergy import Workload


class Stops(Workload):
    stopped = False

    def build(self, o, facts):
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

    def loss(self, model, batch):
        if not Stops.stopped:
            Stops.stopped = True
            breakpoint()
        return nn.functional.cross_entropy(model(batch["x"]), batch["y"])
"""


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with place(tmp_path_factory.mktemp("place") / "home") as found:
        yield found


@pytest.fixture(scope="module")
def request_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("request") / "request.yaml"
    file.write_text(yaml.safe_dump(REQUEST))
    return file


@pytest.fixture(scope="module")
def undisturbed(up: Place, request_file: Path) -> dict[str, Any]:
    """What the swarm makes of the request."""
    found: dict[str, Any] = up.command("run", str(request_file))
    return found


@pytest.fixture(scope="module")
def here(up: Place, undisturbed: dict[str, Any], request_file: Path) -> dict[str, Any]:
    """What one process makes of it, beside the swarm that is up."""
    found: dict[str, Any] = up.command("run", str(request_file), "--here")
    return found


def test_it_ends_in_the_weights_of_the_swarm_and_says_the_same(
    undisturbed: dict[str, Any], here: dict[str, Any]
) -> None:
    assert here["state"] == "completed"
    assert here["weights_digest"] == undisturbed["weights_digest"]
    assert here["metrics"] == undisturbed["metrics"]
    assert {"val_loss", "val_accuracy", "test_loss", "test_accuracy"} <= here["metrics"].keys(), "mode: production"
    assert here.keys() == undisturbed.keys()
    assert [one["kind"] for one in here["artifacts"]] == [one["kind"] for one in undisturbed["artifacts"]]


def test_its_files_are_those_of_any_session_and_the_swarm_shows_them(up: Place, here: dict[str, Any]) -> None:
    session = here["session"]
    assert up.command("audit", session, "--mode", "full")["verdict"] == "pass"
    assert up.command("replay", session)["weights_digest"] == here["weights_digest"]
    bundle = up.home.parent / "b.zip"
    up.command("bundle", session, "-o", str(bundle))
    assert up.command("audit", str(bundle))["verdict"] == "pass"
    assert session in {one["session"] for one in up.command("sessions")["sessions"]}
    folder = up.home / "sessions" / session
    assert {"log", "request.yaml", "exports"} <= {one.name for one in folder.iterdir()}
    assert json.loads((folder / "metrics.json").read_text())["metrics"] == here["metrics"]
    assert "test_accuracy" in (folder / "report.md").read_text()
    refused = up.command("cancel", session, code=6)
    assert "has ended" in refused["error"]["message"]


def test_a_plan_from_a_pipe_that_wants_more_threads_is_carried_out_in_a_process_that_has_them(tmp_path: Path) -> None:
    asked = small_request(training={"epochs": 1, "batch_size": 64, "threads": 2})
    found = Place(tmp_path / "home").command("run", "-", "--here", input=json.dumps(asked))
    facts = Archive(Home(tmp_path / "home")).read(found["session"]).history.facts
    claims = [fact.event for fact in facts if isinstance(fact.event, TrainingClaimed)]
    assert {one.resolved["threads"] for one in claims} == {2}
    assert found["state"] == "completed"


def test_a_session_is_interrupted_at_a_breakpoint_and_goes_on_from_its_file_to_the_same_weights(
    tmp_path: Path, up: Place
) -> None:
    file, request, home = tmp_path / "stops.py", tmp_path / "request.yaml", Place(tmp_path / "home")
    file.write_text(STOPS)
    asked = small_request(model={"architecture": "workload", "workload": "stops"})
    del asked["loss"]
    request.write_text(yaml.safe_dump(asked))
    for one in (home, up):
        one.command("workload", "add", str(file))
    with debugged(home, "run", str(request)) as process:
        process.send_signal(signal.SIGINT)
        said = answered(process, "p 'pid', os.getpid(), len(batch['y'])\nc\n")
        assert process.returncode == 130, said
        assert f"('pid', {process.pid}, 64)" in said
    (session,) = Archive(Home(home.home)).ids()
    assert f"swarm resume {session} --here" in said
    assert Archive(Home(home.home)).read(session).history.state.training.pause
    with home_lock(Home(home.home)):
        second = home.command("run", str(request), "--here", code=6)
        assert "another process trains with --here" in second["error"]["message"]
    with debugged(home, "resume", session) as process:
        answered(process, "c\n")
        assert process.returncode == 0
    found = home.command("resume", session, "--here")
    assert (found["state"], found["session"]) == ("completed", session)
    assert found["weights_digest"] == up.command("run", str(request))["weights_digest"]


@contextlib.contextmanager
def debugged(place: Place, *words: str) -> Iterator[subprocess.Popen[str]]:
    """A command with --here, once its debugger waits for a word."""
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(program(*words, "--here"), env=environment(place.home), text=True, **pipes) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "stops.py(" in line:
                break
        yield process


def answered(process: subprocess.Popen[str], words: str) -> str:
    """Say something to the debugger; all that the process said until its end."""
    out, err = process.communicate(words, timeout=120)
    return err + out


def test_a_server_is_not_named_with_it(tmp_path: Path, request_file: Path) -> None:
    found = Place(tmp_path).command("run", str(request_file), "--here", "--url", "nats://127.0.0.1:1", code=2)
    assert "needs no server" in found["error"]["message"]
