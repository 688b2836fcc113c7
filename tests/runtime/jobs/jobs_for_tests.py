"""Job functions that the tests of children run; each does one small thing a real job does."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from contracts.errors import NotVerified
from runtime.jobs import process, resources
from runtime.jobs.job import Cancel, JobContext, Profile, Seal, job


@dataclass(frozen=True)
class Given:
    """What the jobs here are given; each looks at what it needs."""

    value: int | str = 0
    to: int = 0
    filling: int = 0
    divisor: int = 1
    bytes: int = 0
    then: str = ""
    free: int = 0
    wanted: int = 0
    after: int = 0
    seal: Seal | None = None


@dataclass(frozen=True)
class Told:
    """Anything that a job here tells."""

    kind: str
    data: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Order:
    """Anything that a job here is ordered."""

    kind: str
    data: Mapping[str, object] = field(default_factory=dict)


Context = JobContext[Told, Order | Cancel]
Answer = Mapping[str, object]
train = job(purpose="train", profile=lambda _: Profile(torch=False))


@train
def double(given: Given) -> Answer:
    return {"doubled": 2 * given.value}


@train
def take_memory(given: Given) -> Answer:
    """Take a mebibyte after the other, so many, where so few bytes are free."""
    resources.free_bytes = lambda: given.free
    with resources.bounded():
        held = [bytearray(1 << 20) for _ in range(given.wanted)]
    held += [bytearray(1 << 20) for _ in range(given.after)]
    return {"taken": len(held)}


@train
def count(context: Context, given: Given) -> Answer:
    for number in range(given.to):
        context.tell(Told("counted", dict(number=number, filling="x" * given.filling)))
    return {"counted": given.to}


@train
def obey(context: Context, given: Given) -> Answer:
    """Step until ordered to stop; say what was ordered on the way."""
    context.tell(Told("ready"))
    while True:
        order = context.order()
        if isinstance(order, Cancel):
            return {"ended_by": "cancel"}
        if order is not None and order.kind == "stop":
            return {"ended_by": "stop"}
        if order is not None:
            context.tell(Told("obeyed", dict(kind=order.kind, data=order.data)))


@train
def look_often(context: Context, given: Given) -> Answer:
    began = time.perf_counter()
    for _ in range(10_000):
        context.order()
    return {"microseconds": (time.perf_counter() - began) * 100}


@train
def hold(context: Context, given: Given) -> Answer:
    """Wait for one order, as a trainer does at a hold."""
    context.tell(Told("holding", dict(early=context.order(wait=True, timeout=0.01) is not None)))
    order = context.order(wait=True)
    assert isinstance(order, Order)
    return {"order": order.kind, **order.data}


@train
def answer_and_ignore_orders(context: Context, given: Given) -> Answer:
    context.tell(Told("ready"))
    time.sleep(0.05)  # orders arrive and stay unread
    return {"answered": True}


@train
def answer_early(context: Context, given: Given) -> Answer | None:
    context.result({"early": True})
    context.tell(Told("cleaned"))


@train
def answer_twice(context: Context, given: Given) -> Answer:
    context.result({"first": True})
    return {"second": True}


@train
def babble(context: Context, given: Given) -> Answer:
    """Send what this job never declared, as code that meddles with the channel could."""
    kind, data = str(given.value).split(" ", 1)
    context._send(kind, json.loads(data))
    time.sleep(60)
    return {}


@train
def misspeak(context: Context, given: Given) -> None:
    context.tell(Order("this is none of its words"))  # type: ignore[arg-type]


@train
def deaf(context: Context, given: Given) -> None:
    context.tell(Told("ready", dict(pid=os.getpid())))
    while True:
        signal.pause()


@train
def deaf_to_its_host_until_it_goes(context: Context, given: Given) -> None:
    try:
        while True:
            context.tell(Told("ready"))
    except Exception:
        context.order(wait=True)


@train
def divide_by_zero(given: Given) -> Answer:
    return {"quotient": 1 / given.divisor}


@train
def sort_the_unsortable(given: Given) -> None:
    sys.modules["statistics"] = __import__("statistics")
    sys.modules["statistics"].mean([])


@train
def refuse(given: Given) -> None:
    raise NotVerified("The state root differs.", cure="Use an older checkpoint.", path="state")


@train
def run_out_of_memory(given: Given) -> None:
    raise MemoryError


@train
def leave(given: Given) -> None:
    sys.exit(7)


@train
def leave_at_once(given: Given) -> None:
    os._exit(9)


@train
def crash(given: Given) -> None:
    print("before the crash")
    ctypes.string_at(0)


@train
def speak(given: Given) -> None:
    print("to stdout")
    print("to stderr", file=sys.stderr)
    os.write(1, b"by descriptor\n")
    subprocess.run([sys.executable, "-c", "print('from a descendant')"], check=True)


@train
def remember(given: Given) -> Answer:
    """Touch some memory, so that the peak is known."""
    block = bytearray(given.bytes)
    block[::4096] = b"x" * len(block[::4096])
    return {"touched": len(block)}


@train
def look_around(given: Given) -> Answer:
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


@train
def beget(context: Context, given: Given) -> None:
    """Start a process that would outlive the job and keeps its channel open, then wait."""
    pid = os.fork()
    if pid == 0:
        while True:
            signal.pause()
    context.tell(Told("begot", dict(pid=pid, started=process.start_time(pid))))
    if given.then == "wait":
        context.order(wait=True)


@train
def add_tensors(given: Given) -> Answer:
    import torch

    torch.set_num_threads(1)
    total = torch.ones(64, 64) @ torch.ones(64, 64)
    return {"sum": float(total.sum()).hex(), "loaded_before": given.value}


NOT_A_FUNCTION = 3
