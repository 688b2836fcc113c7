"""The jobs of one host: one zygote per profile, one fork of it per job; it does not know what jobs do."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import anyio
import structlog

from contracts.errors import ChildDied, Refused, SwarmError
from runtime.jobs import process
from runtime.jobs.child import Child
from runtime.jobs.job import Job, Profile, sealed_environment
from runtime.jobs.zygote_link import ZygoteJob, ZygoteLink

log = structlog.get_logger()

A = TypeVar("A")
R = TypeVar("R")
T = TypeVar("T")
O = TypeVar("O")  # noqa: E741 - an order

_PATIENCE = 5.0
"""Seconds in which a zygote has ended a job; one that needs longer does not answer."""

MOST_IDLE = 8
"""Zygotes kept beside those that work: requests name a profile each, and a zygote holds all that torch is."""


class RunningProcess(NamedTuple):
    """One process that lives now; zygotes have the purpose `zygote`."""

    pid: int
    purpose: str
    session: str


class Children:
    """Every child process of the host. Used in the one event loop of the host, whose thread outlives them."""

    def __init__(self, *, stall_after: float = 60.0) -> None:
        self._stall_after = stall_after
        self._zygotes: dict[Profile, ZygoteLink] = {}
        self._starting: dict[Profile, anyio.Lock] = {}
        self._used: Counter[Profile] = Counter()

    async def warm(self, profile: Profile) -> None:
        """Return when jobs of this profile can be forked; a dead zygote is replaced."""
        with self._using(profile):
            async with self._starting.setdefault(profile, anyio.Lock()):
                link = self._zygotes.get(profile)
                if link is None or not link.alive:
                    if link is not None:
                        await link.close()
                    await self._end_idle_beyond(MOST_IDLE, profile)
                    link = await ZygoteLink.start(profile.imports, sealed_environment(profile))
                # The order of these is that in which they were last wanted.
                self._zygotes.pop(profile, None)
                self._zygotes[profile] = link
                try:
                    async with self._answering(link):
                        await link.ready()
                except SwarmError:
                    await link.close()
                    raise

    async def run(
        self,
        job: Job[A, R, T, O],
        argument: A,
        *,
        profile: Profile | None = None,
        session: str = "",
        log: Path | None = None,
    ) -> R:
        """The result of a job that is run to its end in a fork of its own; what it tells is passed over."""
        async with self.job(job, argument, profile=profile, session=session, log=log) as child:
            return await child.wait()

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
        """Begin a job in a fork of its own; leaving the context ends it if it still runs.

        Its process is sealed as the job says for this argument, unless another `profile` is given.
        """
        profile = profile or job.profile(argument)
        begin = job.begin(argument, str(log) if log else None)
        with self._using(profile):
            link, forked = await self._fork(profile, job, session, begin)
            child = Child(job, forked.fate, forked.channel, lambda: link.kill(forked), session, log)
            watch = asyncio.create_task(self._watch(child, link))
            try:
                yield child
            finally:
                watch.cancel()
                child.kill()
                child.hang_up()
                await self._gone(child, link)

    def running(self) -> list[RunningProcess]:
        """Every zygote and job that lives now."""
        found = []
        for link in self._zygotes.values():
            if link.alive:
                found.append(RunningProcess(link.pid, "zygote", ""))
                found += [RunningProcess(job.fate.pid or 0, job.purpose, job.session) for job in link.jobs.values()]
        return found

    async def close(self) -> None:
        """End every zygote and every job."""
        with anyio.CancelScope(shield=True):
            for profile, link in list(self._zygotes.items()):
                await link.close()
                self._zygotes.pop(profile, None)

    @contextmanager
    def _using(self, profile: Profile) -> Iterator[None]:
        """Inside, the zygote of this profile is not idle."""
        self._used[profile] += 1
        try:
            yield
        finally:
            self._used[profile] -= 1
            if not self._used[profile]:
                del self._used[profile]

    async def _end_idle_beyond(self, most: int, wanted: Profile) -> None:
        """End the zygotes that were idle longest, so that with one for `wanted` there are at most so many idle."""
        # While one is closed another may come into use, so each is chosen again.
        while len(idle := [one for one in self._zygotes if one != wanted and not self._used[one]]) >= most:
            link = self._zygotes.pop(idle[0])
            self._starting.pop(idle[0], None)
            with anyio.CancelScope(shield=True):
                await link.close()

    async def _fork(
        self, profile: Profile, job: Job[Any, Any, Any, Any], session: str, begin: bytes
    ) -> tuple[ZygoteLink, ZygoteJob]:
        """A zygote may die just when it is asked; the second one is asked too, then it is no accident."""
        for _ in range(2):
            await self.warm(profile)
            link = self._zygotes[profile]
            async with self._answering(link):
                forked = await link.fork(job.purpose, session, begin, job.name.partition(":")[0])
            if forked.fate.pid is not None:
                return link, forked
            forked.channel.close()
            if forked.fate.refusal:
                raise Refused(
                    f"The system refused a process for a {job.purpose} job: {forked.fate.refusal}.",
                    cure="Raise the limit of processes (ulimit -u) or free memory.",
                )
        raise ChildDied(
            f"Two zygotes died while they forked a {job.purpose} job.",
            cure="Free memory, and see who ends processes here.",
        )

    async def _watch(self, child: Child[Any, Any, Any], link: ZygoteLink) -> None:
        """Kill a job that neither reports nor computes."""
        await standstill(child.pid, self._stall_after, told=lambda: child.told, excused=lambda: child.waits)
        if child.exit is None:
            log.error("a job stands still and is ended", purpose=child.purpose, pid=child.pid, session=child.session)
            child.kill(f"did nothing for {self._stall_after:g} s: it was stopped, or waits for what never comes")
            await self._gone(child, link)

    async def _gone(self, child: Child[Any, Any, Any], link: ZygoteLink) -> None:
        """Return when a killed job is gone; end its zygote when that is stopped, since it could reap no job."""
        with anyio.CancelScope(shield=True):
            with anyio.move_on_after(_PATIENCE):
                await child.ended()
            if child.exit is None:
                link.put_down()
                await child.ended()

    @asynccontextmanager
    async def _answering(self, link: ZygoteLink) -> AsyncIterator[None]:
        """Kill a zygote that does not answer, so that those who wait for it get an error."""

        async def watch() -> None:
            await standstill(link.pid, self._stall_after)
            log.error("a zygote stands still and is ended", pid=link.pid)
            link.put_down()

        watching = asyncio.create_task(watch())
        try:
            yield
        finally:
            watching.cancel()


_LOOKS = 10
"""How many looks at a process there are within the time after which it counts as stalled."""


async def standstill(
    pid: int, after: float, *, told: Callable[[], int] = lambda: 0, excused: Callable[[], bool] = lambda: False
) -> None:
    """Return when the process has used no processor and told nothing for `after` seconds, or is gone.

    One that waits by right (for an order, for its host to read) is excused. A loop without an end is not noticed:
    it cannot be told from a long step.
    """
    idle, before = 0, (-1, -1.0)
    while idle < _LOOKS:
        await asyncio.sleep(after / _LOOKS)
        used = process.cpu_seconds(pid)
        if used is None:
            return
        idle = idle + 1 if (told(), used) == before and not excused() else 0
        before = told(), used
