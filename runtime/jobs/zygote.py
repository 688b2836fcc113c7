"""The process that jobs are forked from: it imports, forks, reaps and reports, and computes nothing.

    python -P -m runtime.jobs.zygote CONTROL PARENT MODULE...

CONTROL is the descriptor of its socket to the host, PARENT the host's pid. The host sends `fork {job}` with the job's
own socket as ancillary data, and `kill {job}`; it hears `ready`, `failed`, `forked`, `unforked` and `ended`. A fork
taken while a second thread runs may hang, so a zygote whose imports started one refuses to begin.
"""

import faulthandler
import gc
import importlib
import os
import select
import signal
import socket
import sys
import threading
from collections import deque
from contextlib import suppress
from functools import cache
from types import FrameType
from typing import Any, NoReturn

from contracts.errors import Failed
from runtime.jobs import process
from runtime.jobs.garbage import collection_paused
from runtime.jobs.job import Job, JobContext, perform
from runtime.jobs.messages import Decoder, encode, error_data

# Asked of a whole group by a terminal, a supervisor or a container; only the host knows how to end in good order.
_LEFT_TO_THE_HOST = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Zygote:
    """The event loop of the zygote's only thread: orders in, forks and ended jobs out."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._decoder = Decoder()
        self._channels: deque[int] = deque()
        self._jobs: dict[int, int] = {}

    def serve(self) -> None:
        """Fork, reap and report until the host closes the control socket."""
        woken, wakes = socket.socketpair()
        for end in (woken, wakes):
            end.settimeout(0)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wakes.fileno(), warn_on_full_buffer=False)
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        poll.register(woken, select.POLLIN)
        self._tell("ready", threads=process.thread_count())
        while True:
            ready = {descriptor for descriptor, _ in poll.poll()}
            if woken.fileno() in ready:
                with suppress(BlockingIOError):
                    woken.recv(4096)
                self._reap()
            if self._control.fileno() in ready and not self._obey():
                return

    def end_all(self) -> None:
        """End what still runs; returns when it is gone."""
        for number in self._jobs:
            self._kill(number)
        for pid in self._jobs.values():
            os.waitpid(pid, 0)

    def _tell(self, kind: str, **data: int | str) -> None:
        self._control.sendall(encode(kind, data))

    def _obey(self) -> bool:
        """Do what has been ordered; False at the end of the socket."""
        data, descriptors, _, _ = socket.recv_fds(self._control, 65536, 64)
        self._channels.extend(descriptors)
        for frame in self._decoder.feed(data):
            if frame.kind == "fork":
                _import_declared(frame.data["module"])
                self._fork(frame.data["job"], self._channels.popleft())
            elif frame.kind == "kill":
                self._kill(frame.data["job"])
        return bool(data)

    def _fork(self, number: int, channel: int) -> None:
        parent = os.getpid()
        try:
            pid = os.fork()
        except OSError as error:
            os.close(channel)
            self._tell("unforked", job=number, reason=str(error))
            return
        if pid == 0:
            self._control.detach()
            _become_job(channel, parent)
        os.close(channel)
        self._jobs[number] = pid
        with suppress(OSError):
            os.setpgid(pid, pid)
        self._tell("forked", job=number, pid=pid)

    def _kill(self, number: int) -> None:
        """End a job and what it started; it is not reaped yet, so the pid is still its own."""
        pid = self._jobs.get(number)
        if pid is not None:
            _kill_group(pid)
            os.kill(pid, signal.SIGKILL)

    def _reap(self) -> None:
        """Tell how jobs have ended; nothing that they started outlives them."""
        while True:
            try:
                if hasattr(os, "waitid"):
                    ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
                    if ended is None:
                        return
                    _kill_group(ended.si_pid)
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            number = next((number for number, running in self._jobs.items() if running == pid), None)
            if number is None:
                continue
            del self._jobs[number]
            code = os.waitstatus_to_exitcode(status)
            memory = usage.ru_maxrss * process.RSS_UNIT
            self._tell("ended", job=number, code=max(code, 0), signal=max(-code, 0), max_rss_bytes=memory)


def _kill_group(pid: int) -> None:
    with suppress(OSError):
        os.killpg(pid, signal.SIGKILL)


def _become_job(channel: int, parent: int) -> NoReturn:
    """In the fork: keep nothing of the zygote's but its memory, do the job, and leave without exit handlers."""
    code = 1
    try:
        process.set_pdeathsig()
        if os.getppid() == parent:
            os.setpgid(0, 0)
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _leave_signals_to_the_host()
            process.close_all_descriptors_but({0, 1, 2, channel})
            process.give_way_when_memory_runs_out()
            code = perform(socket.socket(fileno=channel), _settle)
            sys.stdout.flush()
            sys.stderr.flush()
    finally:
        os._exit(code)


def _settle(job: JobContext[Any, Any]) -> None:
    """Send what the job prints to its log, by line, and the stacks of a crash too."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    log = os.open(job.log or os.devnull, flags, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    faulthandler.enable()
    if not process.LINUX:
        threading.Thread(target=_end_with_the_host, args=(job,), daemon=True).start()


def _end_with_the_host(job: JobContext[Any, Any]) -> None:
    """Where no signal tells of the host's death, the end of the pipe does."""
    job.wait_for_the_end_of_the_host()
    os._exit(1)


def _leave_signals_to_the_host() -> None:
    mine = os.getpid()

    def stay(number: int, _: FrameType | None) -> None:
        # What a job forks (workers of a data loader) inherits this handler and must end when it is told to.
        if os.getpid() != mine:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    for number in _LEFT_TO_THE_HOST:
        signal.signal(number, stay)
        signal.siginterrupt(number, False)  # noqa: FBT003 - its only form


@cache
def _import_declared(module: str) -> None:
    """Import the module that declares a job before its first fork, and what its jobs import, so that forks find both,
    and the types of the jobs read; it computes nothing.

    Only the product's own modules: code of the user's runs in jobs alone.
    """
    if module.partition(".")[0] in ("agents", "runtime"):
        # What is wrong with it is told by the job, which imports it again.
        with suppress(Exception), collection_paused():
            for declared in list(vars(importlib.import_module(module)).values()):
                if isinstance(declared, Job):
                    _ = declared.signature
                    for name in declared.ahead:
                        importlib.import_module(name)
        gc.freeze()


def _import(modules: list[str]) -> None:
    # What is imported stays; to look for cycles in it meanwhile takes a fifth of the time.
    with collection_paused():
        for name in modules:
            importlib.import_module(name)
    if (count := process.thread_count()) > 1:
        raise Failed(
            f"Importing {', '.join(modules)} left {count} threads running, and forks of such a process may hang.",
            cure="Import the module that starts them inside the job function, not in the profile.",
        )


def main(arguments: list[str]) -> int:
    """Be a zygote until the host closes the socket."""
    process.set_pdeathsig()
    control = socket.socket(fileno=int(arguments[0]))
    if os.getppid() != int(arguments[1]):
        return 1
    try:
        prepare(arguments[2:])
    except BaseException as error:  # noqa: BLE001 - the host tells a person, whatever it was
        control.sendall(encode("failed", error_data(error)))
        return 1
    return serve(control)


def prepare(modules: list[str]) -> None:
    """Import what jobs find imported, and leave signals to the host."""
    _leave_signals_to_the_host()
    _import(modules)
    gc.collect()
    gc.freeze()


def serve(control: socket.socket) -> int:
    """Fork what the host asks for until it closes the socket, then end what still runs."""
    zygote = Zygote(control)
    try:
        zygote.serve()
    except ConnectionError:
        return 1
    finally:
        zygote.end_all()
    return 0


if __name__ == "__main__":
    os._exit(main(sys.argv[1:]))
