"""Children whose jobs run in a thread of this process, so that breakpoints work; they cannot be killed.

A job that must be sealed for another number of threads than this process was started with is not begun: whoever
started the process learns of it, and starts another.
"""

import asyncio
import os
import resource
import socket
import threading
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import anyio

from runtime.jobs import process
from runtime.jobs.child import Channel, Child, Exit, Fate
from runtime.jobs.children import A, Children, O, R, RunningProcess, T
from runtime.jobs.job import Job, Profile, Seal, perform


class InlineJobs(Children):
    """Jobs of the purposes named run here, one at a time, because they share this process's random state; others fork.

    A job that runs here sees the loss of its host at its next word or look; leaving its context waits for that.
    """

    def __init__(
        self, purposes: Collection[str] = ("prepare", "train"), *, threads: int | None = None, stall_after: float = 60.0
    ) -> None:
        super().__init__(stall_after=stall_after)
        self._purposes = frozenset(purposes)
        self._threads = threads
        self.misfit = anyio.Event()
        self.wanted = threads
        self._turn = anyio.Lock()
        self._here: list[RunningProcess] = []

    @asynccontextmanager
    async def job(
        self,
        job: Job[A, R, T, O],
        argument: A,
        *,
        profile: Profile | None = None,
        session: str = "",
        log: Path | None = None,
    ) -> AsyncIterator[Child[R, T, O]]:
        """As `Children.job`; prints go where this process prints."""
        if job.purpose not in self._purposes:
            async with super().job(job, argument, profile=profile, session=session, log=log) as child:
                yield child
            return
        await self._fitting(argument)
        begin = job.begin(argument, None)
        async with self._turn:
            ours, theirs = socket.socketpair()
            fate = Fate(pid=os.getpid())
            channel = Channel(ours)
            child = Child(job, fate, channel, lambda: channel.cease(socket.SHUT_RDWR), session, None)
            running = RunningProcess(os.getpid(), job.purpose, session)
            self._here.append(running)
            _start_thread(theirs, fate)
            try:
                await channel.send(begin)
                yield child
            finally:
                await child.release()
                self._here.remove(running)

    async def _fitting(self, argument: object) -> None:
        """Return unless the job wants another environment than this process has; then never."""
        seal = getattr(argument, "seal", None)
        if self._threads is None or not isinstance(seal, Seal) or seal.threads == self._threads:
            return
        self.wanted = seal.threads
        self.misfit.set()
        await anyio.sleep_forever()

    def running(self) -> list[RunningProcess]:
        """As `Children.running`; a job that runs here has the pid of this process."""
        return super().running() + self._here


def _start_thread(theirs: socket.socket, fate: Fate) -> None:
    loop = asyncio.get_running_loop()

    def end(code: int) -> None:
        theirs.close()
        fate.exit = Exit(code, None, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * process.RSS_UNIT)
        fate.ended.set()

    def work() -> None:
        code = perform(theirs)
        # The loop is closed when a person has interrupted it; then no caller waits for this.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(end, code)

    fate.begun.set()
    threading.Thread(target=work, name="job", daemon=True).start()
