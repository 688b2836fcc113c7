"""Job functions that the tests of children run; each does one small thing a real job does."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from contracts.errors import NotVerified
from runtime.jobs import process, resources
from runtime.jobs.job import Job


def double(job: Job) -> dict[str, Any]:
    return {"doubled": 2 * job.args["value"]}


def take_memory(job: Job) -> dict[str, Any]:
    """Take a mebibyte after the other, so many, where so few bytes are free."""
    resources.free_bytes = lambda: job.args["free"]
    with resources.bounded():
        held = [bytearray(1 << 20) for _ in range(job.args["wanted"])]
    held += [bytearray(1 << 20) for _ in range(job.args["after"])]
    return {"taken": len(held)}


def count(job: Job) -> dict[str, Any]:
    for number in range(job.args["to"]):
        job.tell("counted", number=number, filling="x" * job.args.get("filling", 0))
    return {"counted": job.args["to"]}


def obey(job: Job) -> dict[str, Any]:
    """Step until ordered to stop; say what was ordered on the way."""
    job.tell("ready")
    while True:
        order = job.order()
        if order is not None and order.kind in ("stop", "cancel"):
            return {"ended_by": order.kind}
        if order is not None:
            job.tell("obeyed", kind=order.kind, data=order.data)


def look_often(job: Job) -> dict[str, Any]:
    began = time.perf_counter()
    for _ in range(10_000):
        job.order()
    return {"microseconds": (time.perf_counter() - began) * 100}


def hold(job: Job) -> dict[str, Any]:
    """Wait for one order, as a trainer does at a hold."""
    job.tell("holding", early=job.order(wait=True, timeout=0.01) is not None)
    order = job.order(wait=True)
    assert order is not None
    return {"order": order.kind, **order.data}


def answer_and_ignore_orders(job: Job) -> dict[str, Any]:
    job.tell("ready")
    time.sleep(0.05)  # orders arrive and stay unread
    return {"answered": True}


def answer_early(job: Job) -> None:
    job.result({"early": True})
    job.tell("cleaned")


def answer_twice(job: Job) -> dict[str, Any]:
    job.result({"first": True})
    return {"second": True}


def deaf(job: Job) -> None:
    job.tell("ready", pid=os.getpid())
    while True:
        signal.pause()


def deaf_to_its_host_until_it_goes(job: Job) -> None:
    try:
        while True:
            job.tell("ready")
    except Exception:
        job.order(wait=True)


def divide_by_zero(job: Job) -> dict[str, Any]:
    return {"quotient": 1 / job.args["divisor"]}


def sort_the_unsortable(job: Job) -> None:
    sys.modules["statistics"] = __import__("statistics")
    sys.modules["statistics"].mean([])


def refuse(job: Job) -> None:
    raise NotVerified("The state root differs.", cure="Use an older checkpoint.", path="state")


def run_out_of_memory(job: Job) -> None:
    raise MemoryError


def leave(job: Job) -> None:
    sys.exit(7)


def leave_at_once(job: Job) -> None:
    os._exit(9)


def crash(job: Job) -> None:
    print("before the crash")
    ctypes.string_at(0)


def speak(job: Job) -> None:
    print("to stdout")
    print("to stderr", file=sys.stderr)
    os.write(1, b"by descriptor\n")
    subprocess.run([sys.executable, "-c", "print('from a descendant')"], check=True)


def remember(job: Job) -> dict[str, Any]:
    """Touch some memory, so that the peak is known."""
    block = bytearray(job.args["bytes"])
    block[::4096] = b"x" * len(block[::4096])
    return {"touched": len(block)}


def look_around(job: Job) -> dict[str, Any]:
    return {
        "open": [str(entry.readlink()) for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink()],
        "environment": dict(os.environ),
        "threads": process.thread_count(),
        "parent": os.getppid(),
        "pid": os.getpid(),
        "modules": sorted(name for name in sys.modules if "." not in name),
        "main_thread": threading.current_thread() is threading.main_thread(),
        "signals_reset": signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL,
    }


def beget(job: Job) -> None:
    """Start a process that would outlive the job and keeps its channel open, then wait."""
    pid = os.fork()
    if pid == 0:
        while True:
            signal.pause()
    job.tell("begot", pid=pid, started=process.start_time(pid))
    if job.args["then"] == "wait":
        job.order(wait=True)


def add_tensors(job: Job) -> dict[str, Any]:
    import torch

    torch.set_num_threads(1)
    total = torch.ones(64, 64) @ torch.ones(64, 64)
    return {"sum": float(total.sum()).hex(), "loaded_before": job.args["value"]}


NOT_A_FUNCTION = 3
