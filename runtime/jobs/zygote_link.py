"""The host's side of one zygote: starts it in a sealed environment, has it fork and kill, hears how jobs end."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import sysconfig
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import IO, Any, Protocol

import anyio

from contracts.errors import ChildDied
from runtime.jobs import messages
from runtime.jobs.child import CEASE_AT_EXIT, Channel, Exit, Fate
from runtime.jobs.messages import Decoder, Frame, encode

_ZYGOTE = "runtime.jobs.zygote"
_SOURCE = Path(__file__).resolve().parents[2]
_NOBODY_SAW = Exit(code=None, signal=None, max_rss_bytes=0)


@dataclass(slots=True)
class ZygoteJob:
    """One job of this zygote: its number there, its fate and its channel."""

    number: int
    channel: Channel
    purpose: str
    session: str
    fate: Fate = field(default_factory=Fate)


class Process(Protocol):
    """What is asked of the process that a zygote is."""

    @property
    def pid(self) -> int:
        """Its number."""
        ...

    @property
    def returncode(self) -> int | None:
        """How it ended; None while it runs."""
        ...

    def kill(self) -> None:
        """SIGKILL; raises `ProcessLookupError` when it is gone."""
        ...

    async def wait(self) -> int:
        """Return how it ended when it has."""
        ...


class ZygoteLink:
    """A zygote that was started. The thread of the event loop started it, and with that thread it ends (PDEATHSIG)."""

    def __init__(self, process: Process, control: socket.socket, output: IO[bytes]) -> None:
        self.jobs: dict[int, ZygoteJob] = {}
        self.pid = process.pid
        self._process = process
        self._control = control
        self._output = output
        self._decoder = Decoder()
        self._numbers = count(1)
        self._sending = anyio.Lock()
        self._failed: dict[str, Any] | None = None
        self._ready = False
        self._settled = anyio.Event()
        self._open = True
        asyncio.get_running_loop().add_reader(control, self._hear)

    @classmethod
    async def start(cls, modules: tuple[str, ...], environment: Mapping[str, str]) -> ZygoteLink:
        """Begin to start one; `ready` waits for its imports."""
        ours, theirs = socket.socketpair()
        output = tempfile.TemporaryFile()  # noqa: SIM115 - read when the zygote dies, closed with the link
        try:
            with theirs:
                process = await start_process(modules, environment, theirs, output)
        except BaseException:
            ours.close()
            output.close()
            raise
        ours.settimeout(0)
        return cls(process, ours, output)

    @property
    def alive(self) -> bool:
        """Whether it may still be asked to fork."""
        return self._open

    async def ready(self) -> None:
        """Wait until it has imported everything; raises what went wrong."""
        await self._settled.wait()
        if self._ready:
            return
        if self._failed is not None:
            raise messages.error_from_data(self._failed)
        code = await self._process.wait()
        raise ChildDied(
            f"A zygote (pid {self.pid}) ended with {code} while it imported. {self._last_words()}",
            cure="What it could not import must be installed anew; `swarm doctor` shows the versions.",
        )

    async def fork(self, purpose: str, session: str, begin: bytes, module: str) -> ZygoteJob:
        """A new job, declared in this module, that has begun, or whose fate says why it has not."""
        ours, theirs = socket.socketpair()
        job = ZygoteJob(next(self._numbers), Channel(ours), purpose, session)
        try:
            with theirs:
                await self._hand_over(job, theirs, module)
            with suppress(OSError):  # a job that is dead already; its fate says so
                await job.channel.send(begin)
            await job.fate.begun.wait()
        except BaseException:
            self.kill(job)
            job.channel.close()
            raise
        return job

    def kill(self, job: ZygoteJob) -> None:
        """End a job. The zygote does it, because only who reaps knows that a pid is still the same process."""
        try:
            self._control.send(encode("kill", {"job": job.number}))
        except OSError:
            # A zygote that does not listen does not reap either: the pid is still the job's.
            if job.fate.pid and job.fate.exit is None:
                with suppress(ProcessLookupError):
                    os.kill(job.fate.pid, signal.SIGKILL)

    def put_down(self) -> None:
        """SIGKILL, for a zygote that does not answer; its jobs end with it."""
        with suppress(ProcessLookupError):
            self._process.kill()

    async def close(self) -> None:
        """End it and its jobs; returns when the process is gone."""
        if self._open:
            self._control.shutdown(socket.SHUT_RDWR)
        with anyio.move_on_after(5):
            await self._process.wait()
        if self._process.returncode is None:
            self._process.kill()
            await self._process.wait()
        self._lose()
        anyio.notify_closing(self._control)
        self._control.close()
        self._output.close()

    async def _hand_over(self, job: ZygoteJob, end: socket.socket, module: str) -> None:
        """Have the zygote fork for `end`; when it cannot hear that, the job ends before it began."""
        async with self._sending:
            while self._open:
                try:
                    socket.send_fds(
                        self._control, [encode("fork", {"job": job.number, "module": module})], [end.fileno()]
                    )
                except BlockingIOError:
                    with suppress(anyio.ClosedResourceError):
                        await anyio.wait_writable(self._control)
                except OSError:
                    self._lose()
                else:
                    # Only what was sent is waited for: a task may be cancelled before.
                    self.jobs[job.number] = job
                    return
        self._end(job, _NOBODY_SAW, None)

    def _hear(self) -> None:
        try:
            data = self._control.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        for frame in self._decoder.feed(data):
            self._note(frame)
        if not data:
            self._lose()

    def _note(self, frame: Frame) -> None:
        data = frame.data
        if frame.kind in ("ready", "failed"):
            self._ready = frame.kind == "ready"
            self._failed = None if self._ready else data
            self._settled.set()
            return
        job = self.jobs[data["job"]]
        if frame.kind == "forked":
            job.fate.pid = data["pid"]
            job.fate.begun.set()
        elif frame.kind == "unforked":
            job.fate.refusal = data["reason"]
            self._end(job, _NOBODY_SAW, CEASE_AT_EXIT)
        elif frame.kind == "ended":
            number = data["signal"] or None
            end = Exit(None if number else data["code"], number, data["max_rss_bytes"])
            self._end(job, end, CEASE_AT_EXIT)

    def _end(self, job: ZygoteJob, end: Exit, cease: int | None) -> None:
        self.jobs.pop(job.number, None)
        job.fate.exit = end
        if cease is not None:
            job.channel.cease(cease)
        job.fate.begun.set()
        job.fate.ended.set()

    def _lose(self) -> None:
        """The zygote is gone, and its jobs with it."""
        if not self._open:
            return
        self._open = False
        asyncio.get_running_loop().remove_reader(self._control)
        self._settled.set()
        for job in list(self.jobs.values()):
            self._end(job, _NOBODY_SAW, socket.SHUT_RDWR)

    def _last_words(self) -> str:
        self._output.seek(0)
        said = self._output.read()[-2000:].decode(errors="replace").strip()
        return f"Its last words: {said}" if said else "It said nothing."


async def start_process(
    modules: tuple[str, ...], environment: Mapping[str, str], control: socket.socket, output: IO[bytes]
) -> Process:
    """A process that imports these and then is the zygote at this end of the control socket."""
    # The zygote runs this very code, which an installed package finds by itself.
    installed = {Path(sysconfig.get_path(name)) for name in ("purelib", "platlib")}
    source = {} if _SOURCE in installed else {"PYTHONPATH": str(_SOURCE)}
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", _ZYGOTE, str(control.fileno()), str(os.getpid()), *modules),
        env=dict(environment) | source,
        pass_fds=(control.fileno(),),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        start_new_session=True,
    )
