"""The commands against a real swarm: its life and death, and a session from submit to export."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from runtime.jobs import process
from tests.agents.test_repair_limit import POISONED

REQUEST = """\
data: {source: digits}
model: {architecture: linear}
training: {epochs: 3}
early_stopping: {enabled: false}
"""
GUEST = '''\
from pathlib import Path

from contracts.ledger import SessionSealed
from contracts.resource_monitor import ResourcesSummarised
from stigmergy import Agent, Event, on


class ThingCounted(Event, wire="thing.counted"):
    """Something was counted."""

    samples: int


class Counter(Agent):
    """Counts samples."""

    @on
    async def count(self, seen: ResourcesSummarised) -> ThingCounted:
        return ThingCounted(samples=seen.samples)

    @on
    async def note(self, seal: SessionSealed) -> None:
        with Path(__file__).with_name("sealed").open("a") as file:
            file.write(f"{seal.root}\\n")
'''


STARTED: list[subprocess.Popen[str]] = []
"""Commands that the running test has started."""


@pytest.fixture(autouse=True)
def _none_is_left() -> Iterator[None]:
    """A test that fails in the middle of a command leaves neither process nor pipe to the next one."""
    yield
    for one in STARTED:
        if one.poll() is None:
            one.kill()
        with one:  # which waits for it and closes its pipes
            pass
    STARTED.clear()


class Home:
    """A home and the commands run on it, each a process of its own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.request = root.parent / "request.yaml"
        self.request.write_text(REQUEST)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "runtime.cli.start", *arguments, "--home", str(self.root)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        STARTED.append(process)
        return process

    def run(self, *arguments: str) -> tuple[int, str, str]:
        process = self.start(*arguments)
        out, err = process.communicate(timeout=90)
        return process.returncode, out, err

    def ask(self, *arguments: str) -> dict[str, Any]:
        code, out, err = self.run(*arguments, "--json")
        assert code == 0, out + err
        found: dict[str, Any] = json.loads(out.splitlines()[-1])
        return found


def until(true: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    home = Home(tmp_path_factory.mktemp("swarm") / "home")
    try:
        home.ask("up", "-d")
        yield home
    finally:
        home.run("down")


@pytest.fixture(scope="module")
def trained(up: Home) -> dict[str, Any]:
    """A session that was submitted and waited for."""
    session = up.ask("submit", str(up.request))["session"]
    return up.ask("wait", session, "--timeout", "60")


def test_status_tells_server_host_agents_and_children(up: Home):
    found = up.ask("status")
    assert found.keys() >= {"server", "host", "creds", "agents", "children"}
    assert found["server"]["url"].startswith("nats://127.0.0.1:")
    assert Path(found["creds"]).stat().st_mode & 0o077 == 0
    assert all(one.keys() == {"name", "ready", "pid", "lag"} and one["ready"] for one in found["agents"])
    assert {"pid", "purpose", "session"} <= found["children"][0].keys()


def test_up_again_is_0_in_the_background_and_6_in_the_foreground(up: Home):
    pid = up.ask("status")["host"]["pid"]
    assert up.ask("up", "-d")["host"]["pid"] == pid
    code, out, _ = up.run("up", "--json")
    assert (code, json.loads(out)["error"]["code"]) == (6, "refused")


def test_options_that_come_too_late_are_said_to(up: Home):
    code, _, err = up.run("up", "-d", "--without", "exporter")
    assert (code, "next start" in err) == (0, True)


def test_a_background_host_keeps_none_of_the_caller_s_descriptors(up: Home):
    pid = up.ask("status")["host"]["pid"]
    opened = {str(one.readlink()) for one in Path(f"/proc/{pid}/fd").iterdir() if one.is_symlink()}
    assert not any(name.startswith("pipe:") and "stdin" in name for name in opened)
    assert Path(f"/proc/{pid}/fd/0").readlink() == Path("/dev/null")
    assert Path(f"/proc/{pid}/fd/1").readlink() == up.root / "host.log"
    assert os.getsid(pid) == pid


def test_a_submitted_session_is_waited_for(up: Home, trained: dict[str, Any]):
    assert trained["state"] == "completed"
    assert trained["metrics"].keys() >= {"val_loss", "val_accuracy"}
    assert up.ask("show", "last")["session"] == trained["session"]


def test_run_tells_facts_on_stderr_and_the_outcome_on_stdout(up: Home):
    code, out, err = up.run("run", str(up.request), "--set", "training.epochs=2", "--set", "name=two", "--json")
    assert code == 0
    assert json.loads(out)["name"] == "two"
    assert "trainer: epoch 2" in err
    assert "\x1b" not in err


def test_the_same_request_id_names_the_same_session(up: Home):
    first = up.ask("submit", str(up.request), "--request-id", "again")
    assert up.ask("submit", str(up.request), "--request-id", "again") == first
    code, out, _ = up.run("submit", str(up.request), "--request-id", "again", "--set", "training.epochs=1", "--json")
    assert (code, json.loads(out)["error"]["code"]) == (6, "refused")


def test_events_can_be_followed_to_the_end(up: Home):
    session = up.ask("submit", str(up.request))["session"]
    code, out, _ = up.run("events", session, "--follow")
    lines = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [line["seq"] for line in lines] == list(range(1, len(lines) + 1))
    assert lines[-1]["name"] == "session.sealed"


def test_a_session_is_audited_while_the_swarm_is_up(up: Home, trained: dict[str, Any]):
    found = up.ask("audit", trained["session"])
    assert (found["verdict"], found["events"]) == ("pass", trained["events"])


def test_an_audit_in_the_swarm_answers_as_one_without_and_goes_on_when_its_host_is_killed(up: Home):
    session = up.ask("submit", str(up.request), "--set", "training.epochs=40")["session"]
    up.ask("wait", session, "--timeout", "80")
    alone = up.ask("audit", session, "--mode", "full")
    auditing = up.start("audit", session, "--mode", "full", "--in-swarm", "--json")
    assert auditing.stderr is not None
    while "same bits" not in (line := auditing.stderr.readline()):
        assert line, "it ended before a span was computed"
    os.kill(up.ask("status")["host"]["pid"], signal.SIGKILL)
    up.ask("up", "-d")
    out, err = auditing.communicate(timeout=90)
    assert auditing.returncode == 0, err
    found = json.loads(out)
    own = found.pop("audit")
    assert found == alone
    assert (up.ask("show", own)["kind"], up.ask("wait", own)["verdict"]) == ("audit", "pass")
    assert "PASS" in up.run("show", own)[1]
    assert own in [one["session"] for one in up.ask("sessions", "--kind", "audit")["sessions"]]
    assert up.run("audit", session, "--in-swarm", "--workers", "2")[0] == 2
    assert up.run("audit", session, "--in-swarm", "--segments", "0")[0] == 2


def test_an_export_answers_with_a_file(up: Home, trained: dict[str, Any]):
    found = up.ask("export", trained["session"], "--format", "safetensors")
    assert found.keys() >= {"path", "format", "digest", "parity"}
    assert Path(found["path"]).stat().st_size == found["bytes"]
    assert found["parity"]["max_abs"] == 0.0


def test_an_unknown_format_is_a_usage_error(up: Home, trained: dict[str, Any]):
    assert up.run("export", trained["session"], "--format", "floppy")[0] == 2


def test_a_person_pauses_resumes_and_cancels(up: Home):
    long = ["--set", "training.epochs=100000", "--set", "name=long"]
    session = up.ask("submit", str(up.request), *long)["session"]
    until(lambda: up.ask("show", session)["step"] > 0)
    up.ask("pause", session)
    until(lambda: up.ask("show", session)["state"] == "paused")
    up.ask("resume", session)
    until(lambda: up.ask("show", session)["state"] == "training")
    up.ask("cancel", session, "--reason", "enough")
    code, out, _ = up.run("wait", session, "--timeout", "60", "--json")
    assert (code, json.loads(out)["state"]) == (1, "cancelled")
    assert up.run("cancel", session)[0] == 6


def test_waiting_too_long_is_124(up: Home):
    session = up.ask("submit", str(up.request), "--set", "training.epochs=100000")["session"]
    code, out, _ = up.run("wait", session, "--timeout", "0.2", "--json")
    assert (code, json.loads(out)["error"]["code"]) == (124, "timed-out")
    code, _, err = up.run("watch", session, "--timeout", "0.5")
    assert code == 124
    assert "swarm cancel" in err
    up.ask("cancel", session)


def test_ctrl_c_stops_watching_and_not_the_session(up: Home):
    session = up.ask("submit", str(up.request), "--set", "training.epochs=100000")["session"]
    watching = up.start("watch", session)
    assert watching.stderr is not None
    watching.stderr.readline()
    watching.send_signal(signal.SIGINT)
    _, err = watching.communicate(timeout=20)
    assert watching.returncode == 130
    assert "The session goes on" in err
    assert up.ask("show", session)["state"] in ("preparing", "training")
    up.ask("cancel", session)


def test_a_guest_is_admitted_runs_alone_and_is_recorded(up: Home):
    source = up.root.parent / "counter.py"
    source.write_text(GUEST)
    assert up.run("agent", "run", str(source))[0] == 4
    assert up.ask("agent", "new", "counter", "--from", str(source))["lane"] == "guest_counter"
    guest = up.start("agent", "run", str(source))
    try:
        assert guest.stdout is not None
        assert "guest_counter" in guest.stdout.readline()
        second = up.start("agent", "run", str(source))
        assert second.stderr is not None
        assert "Another 'counter' was heard" in second.stderr.readline()
        second.send_signal(signal.SIGTERM)
        second.communicate(timeout=20)
        session = up.ask("submit", str(up.request), "--set", "name=counted")["session"]
        up.ask("wait", session)
        until(lambda: up.run("events", session, "--lane", "guest_counter")[1] != "")
        assert up.ask("audit", session)["verdict"] == "pass"
        assert "counter" in {one["name"] for one in up.ask("agents")["agents"]}
        sealed, root = source.with_name("sealed"), up.ask("show", session)["sealed"]
        until(lambda: sealed.exists() and root in sealed.read_text().split())
    finally:
        guest.send_signal(signal.SIGTERM)
        guest.communicate(timeout=20)
    assert guest.returncode == 0


def test_one_poisoned_row_is_named_and_left_out_by_real_processes_in_one_intervention(up: Home):
    source = up.root.parent / "poisoned.py"
    source.write_text(POISONED)
    assert up.run("workload", "add", str(source))[0] == 0
    told = {
        "model": {"architecture": "workload", "workload": "poisoned"},
        "data": {"source": "workload", "workload": "poisoned"},
        "training": {"epochs": 6, "batch_size": 64},
        "checkpoints": {"every_steps": 10},
        "optimizer": {"type": "adamw", "learning_rate": 0.001},
    }
    request = source.with_suffix(".yaml")
    request.write_text(json.dumps(told))
    session = up.ask("submit", str(request))["session"]
    assert up.ask("wait", session, "--timeout", "80")["state"] == "completed"
    names = [json.loads(line)["name"] for line in up.run("events", session, "--json")[1].splitlines()]
    assert names.count("attempt.bisected") == names.count("intervention.applied") == names.count("outcome.judged") == 1
    (change,) = up.ask("show", session)["interventions"]
    assert list(change["changes"]) == ["skip_rows"]
    assert up.ask("audit", session)["verdict"] == "pass"


def test_the_doctor_finds_nothing_wrong(up: Home, trained: dict[str, Any]):
    found = up.ask("doctor")
    assert [one for one in found["findings"] if one["level"] == "fail"] == []


def test_a_killed_server_is_back_when_up_returns(up: Home):
    before = up.ask("status")
    os.kill(before["server"]["pid"], signal.SIGKILL)
    after = up.ask("up", "-d")
    assert after["host"] == before["host"]
    assert up.ask("sessions")["sessions"]


def test_a_killed_host_is_replaced_by_up_and_what_it_trained_says_meanwhile_that_nobody_has_it(up: Home):
    before = up.ask("status")["host"]["pid"]
    session = up.ask("submit", str(up.request), "--set", "training.epochs=60")["session"]
    log = up.root / "sessions" / session / "log"
    until(lambda: log.exists() and b".window_recorded " in log.read_bytes())
    os.kill(before, signal.SIGKILL)
    until(lambda: "waits" in up.ask("show", session))
    waiting = up.ask("show", session)
    assert (waiting["state"], waiting["step"] > 0) == ("training", True)
    assert "nobody has it now" in waiting["waits"]
    assert waiting["waits"].endswith("swarm up -d")
    listed = {one["session"]: one["waits"] for one in up.ask("sessions")["sessions"]}
    assert [one for one, waits in listed.items() if waits] == [session]
    assert up.ask("up", "-d")["host"]["pid"] != before
    ended = up.ask("wait", session, "--timeout", "60")
    assert (ended["state"], ended.get("waits", "")) == ("completed", "")


def test_several_who_start_at_once_get_the_same_host(tmp_path: Path):
    home = Home(tmp_path / "home")
    try:
        starting = [home.start("up", "-d", "--json") for _ in range(3)]
        answers = [json.loads(one.communicate(timeout=60)[0]) for one in starting]
        assert len({answer["host"]["pid"] for answer in answers}) == 1
    finally:
        home.run("down")
    assert home.run("status")[0] == 5


def test_down_ends_a_host_that_has_not_said_yet_that_it_is_ready(tmp_path: Path):
    home = Home(tmp_path / "home")
    host, lock = home.start("up"), home.root / "lock"
    until(lambda: lock.exists() and lock.read_text() != "")
    assert home.ask("down") == {"was_up": True, "pid": host.pid, "orphan": None}
    host.communicate(timeout=20)
    assert home.ask("down")["was_up"] is False


def test_a_store_that_was_lost_is_refused_at_the_start_until_it_is_back_and_the_doctor_says_so(tmp_path: Path):
    home = Home(tmp_path / "home")
    store, lost = home.root / "nats" / "store", tmp_path / "lost"
    try:
        home.ask("up", "-d")
        home.ask("down")
        store.rename(lost)
        code, out, _ = home.run("up", "-d", "--json")
        error = json.loads(out)["error"]
        assert (code, error["code"]) == (3, "not-verified")
        assert str(store) in error["cure"]
        code, out, _ = home.run("doctor", "--json")
        assert code == 1
        assert error["message"] in {one["message"] for one in json.loads(out)["findings"]}
        shutil.rmtree(store)
        lost.rename(store)
        assert home.ask("up", "-d")["ready"]
        assert home.ask("doctor")["ok"]
    finally:
        home.run("down")


def test_a_host_whose_home_was_removed_ends_and_leaves_the_next_one_alone(tmp_path: Path):
    home = Home(tmp_path / "home")
    try:
        before = home.ask("up", "-d")["host"]["pid"]
        shutil.rmtree(home.root)
        assert home.ask("up", "-d")["host"]["pid"] != before
        until(lambda: process.start_time(before) is None)
        assert home.ask("status")["ready"]
    finally:
        home.run("down")


def test_what_kept_a_background_host_from_starting_is_told(tmp_path: Path):
    home = Home(tmp_path / "home")
    home.root.mkdir()
    (home.root / "layout").write_text("99\n")
    code, out, _ = home.run("up", "-d", "--json")
    assert (code, json.loads(out)["error"]["code"]) == (6, "newer-than-code")
    (home.root / "layout").write_text("1\n")
    (home.root / "nats").write_text("a file where a folder must be")
    code, _, err = home.run("up", "-d")
    assert code != 0
    assert "error: " in err
