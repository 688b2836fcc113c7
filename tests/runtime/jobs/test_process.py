from __future__ import annotations

import asyncio
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from contracts.errors import InvalidInput
from runtime.jobs import failpoints, process
from runtime.jobs.children import standstill

IGNORES_SIGTERM = (
    "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); signal.pause()"
)
WAITS = "import signal; print('ready', flush=True); signal.pause()"


@contextmanager
def python(code: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """A process that runs this code; it is ended when the context is left, however that comes."""
    environment = dict(os.environ) | environment
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment) as child:
        try:
            yield child
        finally:
            child.kill()


def said(process_: subprocess.Popen[str]) -> str:
    assert process_.stdout is not None
    return process_.stdout.readline().strip()


@pytest.fixture
def waiting() -> Iterator[subprocess.Popen[str]]:
    with python(WAITS) as child:
        assert said(child) == "ready"
        yield child
        child.kill()


def test_a_process_is_known_by_pid_and_start_time(waiting: subprocess.Popen[str]) -> None:
    started = process.start_time(waiting.pid)
    assert started is not None
    assert process.alive(waiting.pid, started)
    assert not process.alive(waiting.pid, started - 1)


def test_a_process_that_was_not_reaped_yet_is_not_alive(waiting: subprocess.Popen[str]) -> None:
    started = process.start_time(waiting.pid)
    assert started is not None
    waiting.kill()
    os.waitid(os.P_PID, waiting.pid, os.WEXITED | os.WNOWAIT)
    assert not process.alive(waiting.pid, started)


def test_nobody_has_the_start_time_of_a_process_that_is_gone(waiting: subprocess.Popen[str]) -> None:
    waiting.kill()
    waiting.wait()
    assert process.start_time(waiting.pid) is None


def test_a_name_with_parentheses_does_not_confuse_the_start_time() -> None:
    code = """
import os, runtime.jobs.process
open("/proc/self/comm", "w").write("a) S 1 (b")
print(runtime.jobs.process.start_time(os.getpid()))
"""
    with python(code) as child:
        assert int(said(child)) > 0


def test_a_process_ends_when_it_is_asked(waiting: subprocess.Popen[str]) -> None:
    started = process.start_time(waiting.pid)
    assert started is not None
    assert process.end(waiting.pid, started, grace=60)
    assert waiting.wait() == -signal.SIGTERM


def test_a_process_that_ignores_the_request_is_killed() -> None:
    with python(IGNORES_SIGTERM) as child:
        assert said(child) == "ready"
        assert process.end(child.pid, process.start_time(child.pid) or 0, grace=0.05)
        assert child.wait() == -signal.SIGKILL


def test_another_process_with_the_same_pid_is_left_alone(waiting: subprocess.Popen[str]) -> None:
    started = process.start_time(waiting.pid)
    assert started is not None
    assert not process.end(waiting.pid, started + 1)
    assert process.alive(waiting.pid, started)


def test_ending_what_has_ended_is_no_error(waiting: subprocess.Popen[str]) -> None:
    started = process.start_time(waiting.pid)
    assert started is not None
    waiting.kill()
    waiting.wait()
    assert not process.end(waiting.pid, started)


def test_only_the_descriptors_named_stay_open() -> None:
    code = """
import os
from runtime.jobs.process import close_all_descriptors_but
opened = [os.open("/dev/null", os.O_RDONLY) for _ in range(50)]
close_all_descriptors_but({0, 1, 2, opened[7]})
print([descriptor for descriptor in range(3, 100) if os.path.exists(f"/proc/self/fd/{descriptor}")])
print([opened[7]])
"""
    with python(code) as child:
        assert said(child) == said(child)


def test_the_kernel_ends_a_child_whose_parent_was_killed() -> None:
    parent = f"""
import signal, subprocess, sys
waits = "from runtime.jobs import process; process.set_pdeathsig(); {WAITS}"
child = subprocess.Popen([sys.executable, "-c", waits])
print(child.pid, flush=True)
signal.pause()
"""
    with python(parent) as child:
        lines = {said(child), said(child)}
        pid = int(next(line for line in lines if line != "ready"))
        ended = select.poll()
        descriptor = os.pidfd_open(pid)
        ended.register(descriptor, select.POLLIN)
        child.kill()
        assert ended.poll(30_000)
        os.close(descriptor)


def test_threads_of_c_libraries_are_counted() -> None:
    code = """
import threading, runtime.jobs.process
release = threading.Event()
threading.Thread(target=release.wait).start()
print(runtime.jobs.process.thread_count())
release.set()
"""
    with python(code) as child:
        assert said(child) == "2"


PASSES = (
    "from runtime.jobs.failpoints import failpoint\nfor n in range(3): failpoint('before-append'); print(n, flush=True)"
)


@pytest.mark.parametrize(
    ("setting", "survived", "code"),
    [
        ("", "0\n1\n2\n", 0),
        ("between-append-and-ack", "0\n1\n2\n", 0),
        ("before-append", "", -9),
        ("before-append:1", "", -9),
        ("before-append:3", "0\n1\n", -9),
        ("before-append:4", "0\n1\n2\n", 0),
    ],
)
def test_a_process_dies_at_the_passage_that_was_asked_for(setting: str, survived: str, code: int) -> None:
    with python(PASSES, SWARM_FAILPOINT=setting) as child:
        out, _ = child.communicate()
    assert (out, child.returncode) == (survived, code)


def test_of_all_processes_that_pass_one_dies_when_a_file_chooses_it(tmp_path: Path) -> None:
    setting = f"after-seal,before-append:2@{tmp_path / 'mark'}"
    seen = []
    for _ in range(2):
        with python(PASSES, SWARM_FAILPOINT=setting) as child:
            seen.append((child.communicate()[0], child.returncode))
    assert seen == [("0\n", -9), ("0\n1\n2\n", 0)]


@pytest.mark.parametrize("setting", ["nowhere", "before-append:0", "before-append:x"])
def test_a_failpoint_that_does_not_exist_is_refused_with_the_names(setting: str) -> None:
    with pytest.raises(InvalidInput, match=setting) as refused:
        failpoints._ArmedFailpoint(setting)
    assert "before-append" in refused.value.cure


def test_an_undeclared_failpoint_is_noticed_by_every_crash_test() -> None:
    with pytest.raises(InvalidInput, match="'elsewhere'"):
        failpoints._ArmedFailpoint("before-append").pass_by("elsewhere")


async def test_a_process_that_waits_by_right_does_not_stand_still_and_does_once_it_is_not_excused():
    sleeper, excused, looks = subprocess.Popen(["sleep", "60"]), True, 0

    def by_right() -> bool:
        nonlocal looks
        looks += 1
        return excused

    try:
        still = asyncio.create_task(standstill(sleeper.pid, 0.1, excused=by_right))
        async with asyncio.timeout(20):
            while looks < 30:
                assert not still.done()
                await asyncio.sleep(0.01)
            excused = False
            await still
        assert sleeper.poll() is None
    finally:
        sleeper.kill()
        sleeper.wait()
