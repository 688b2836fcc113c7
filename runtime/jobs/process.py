"""What the operating system says about processes, and how one is ended; starts none.

A process is named by pid *and* start time, because pids are used again. Linux is asked through /proc and pidfd; macOS
through `ps` and signals, where a death of the parent is noticed at the end of a pipe instead of by PDEATHSIG.
"""

import ctypes
import os
import select
import signal
import sys
import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from bus import process_facts

LINUX = sys.platform == "linux"
RSS_UNIT = 1024 if LINUX else 1  # what one ru_maxrss is, in bytes
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True) if LINUX else None


def start_time(pid: int) -> int | None:
    """When the process began: clock ticks since boot (Linux) or seconds since the epoch (macOS); None when gone."""
    if LINUX:
        facts = process_facts.read(pid)
        return None if facts is None else facts.started
    shown = process_facts.ps(pid, "lstart")
    return int(time.mktime(time.strptime(shown))) if shown else None


def alive(pid: int, started: int) -> bool:
    """Whether that very process still runs; one that ended and waits to be reaped does not."""
    if LINUX:
        facts = process_facts.read(pid)
        return facts is not None and facts.started == started and not facts.has_ended
    return start_time(pid) == started and not process_facts.ps(pid, "stat").startswith("Z")


def end(pid: int, started: int, grace: float = 5.0) -> bool:
    """End that very process: SIGTERM, then SIGKILL after `grace` seconds. False when it had ended already. Blocks."""
    if not hasattr(os, "pidfd_open"):
        return _end_by_pid(pid, started, grace)
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        # Only now is the name certain: while the descriptor is open the pid is not given to another process.
        if not alive(pid, started):
            return False
        waiting = select.poll()
        waiting.register(descriptor, select.POLLIN)
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(descriptor, signal.SIGTERM)
            if not waiting.poll(grace * 1000):
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                waiting.poll()
        return True
    finally:
        os.close(descriptor)


def cpu_seconds(pid: int) -> float | None:
    """Processor time that the process and its ended children have used; None when it is gone."""
    if LINUX:
        facts = process_facts.read(pid)
        return None if facts is None else (facts.own_ticks + facts.children_ticks) / process_facts.TICKS_PER_SECOND
    shown = process_facts.ps(pid, "time")
    if not shown:
        return None
    days, _, clock = shown.rpartition("-")
    parts = [float(part) for part in clock.split(":")]
    seconds = 0.0
    for part in parts:
        seconds = 60 * seconds + part
    return seconds + 86_400 * int(days or 0)


def set_pdeathsig(number: int = signal.SIGKILL) -> None:
    """Have the kernel send `number` to this process when the thread that started it ends; does nothing on macOS.

    The caller must compare `os.getppid()` afterwards: the parent may have died before the call.
    """
    if _LIBC is not None and _LIBC.prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")


def close_all_descriptors_but(keep: Collection[int]) -> None:
    """Close every open descriptor of this process that is not in `keep`."""
    open_now = [int(entry.name) for entry in Path("/proc/self/fd" if LINUX else "/dev/fd").iterdir()]
    for descriptor in open_now:
        if descriptor not in keep:
            with suppress(OSError):
                os.close(descriptor)


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def thread_count() -> int:
    """How many threads this process has, those of C libraries included; 1 where the system does not say."""
    return len(list(Path("/proc/self/task").iterdir())) if LINUX else 1


def give_way_when_memory_runs_out() -> None:
    """Let the kernel take this process before its ancestors when memory runs out."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500", encoding="ascii")


def _end_by_pid(pid: int, started: int, grace: float) -> bool:
    """Without pidfd the end can only be looked for again and again."""
    if not alive(pid, started):
        return False
    deadline = time.monotonic() + grace
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
        while alive(pid, started) and time.monotonic() < deadline:
            time.sleep(0.02)
        while alive(pid, started):
            os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)
    return True
