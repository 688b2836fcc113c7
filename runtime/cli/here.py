"""`--here`: a session carried to its end in this very process, so that breakpoints in the user's code are reached.

The process must have been started sealed, so it starts itself again in the sealed environment; and once more when the
plan turns out to want another number of threads than it was sealed for.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from contracts.errors import Failed, InvalidInput, SwarmError, TimedOut
from contracts.ids import session_for
from runtime.cli.call import Call
from runtime.engine import environment
from runtime.views.progress import progress

if TYPE_CHECKING:
    from runtime.commands.client import Swarm
    from runtime.host.swarm_node import SwarmNode
    from runtime.jobs.inline import InlineJobs

HANDED = "SWARM_HERE"
"""Set in a process that was started again: the session that it goes on with, or `-`."""


class LocalSwarm:
    """This process as the place of one session: which one, and for how many threads it is sealed."""

    def __init__(self, call: Call, threads: int = 1, *, quiet: bool = False) -> None:
        if call.settings.url or call.settings.creds:
            raise InvalidInput("--here needs no server.", cure="Leave --url and --creds out.")
        self.call, self.quiet = call, quiet
        handed, found = os.environ.pop(HANDED, ""), os.environ.get("OMP_NUM_THREADS", "")
        if not (found.isdigit() and environment.is_sealed(profile="exact", threads=int(found))):
            if handed:
                raise Failed("this process cannot be sealed.", cure="Run it without --here; see: swarm doctor")
            self.start_again(threads, "-")
        self.threads = int(found)
        self.session = handed.strip("-")

    def start_again(self, threads: int, session: str) -> NoReturn:
        """Become a process that was started with the environment for so many threads."""
        sys.stdout.flush()
        sys.stderr.flush()
        sealed = environment.sealed(os.environ, profile="exact", threads=threads) | {HANDED: session}
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], sealed)  # noqa: S606 - ourselves once more

    def carry(self, asked: dict[str, Any] | None, within: float | None, folder: Path | None = None) -> dict[str, Any]:
        """The summary of the session once it has ended: that of a request, or the one that goes on.

        A request may name files in the folder.
        """
        from runtime.host import logs

        logs.configure("warning", as_json=self.call.settings.log_json)
        # With --json, what user code prints goes to stderr, because stdout holds the JSON answer alone.
        with contextlib.redirect_stdout(sys.stderr) if self.call.json else contextlib.nullcontext():
            seen = asyncio.run(_Carrying(self, asked, within, folder).whole())
        if isinstance(seen, int):
            self.start_again(seen, self.session)
        return seen


class _Carrying:
    """One session on its way, watched until it has ended, or until something else ends this."""

    def __init__(
        self, place: LocalSwarm, asked: dict[str, Any] | None, within: float | None, folder: Path | None
    ) -> None:
        self._place = place
        self._asked = asked
        self._within = within
        self._folder = folder

    async def whole(self) -> dict[str, Any] | int:
        """The summary, or the number of threads for which the process must be sealed instead."""
        from runtime.host import local_swarm
        from runtime.jobs.inline import InlineJobs

        place, settings = self._place, self._place.call.settings
        if self._asked and (name := self._asked.get("request_id")):
            place.session = session_for(name, local_swarm.PARTITION)
        children = InlineJobs(threads=place.threads, stall_after=settings.stall_after_seconds)
        error: BaseException | None = None
        async with local_swarm.run_local_swarm(settings, children, place.session) as crew:
            try:
                return await self._watched(crew, children)
            except (SwarmError, KeyboardInterrupt) as raised:
                # The others end in good order first.
                error = raised
        raise error

    async def _watched(self, crew: SwarmNode, children: InlineJobs) -> dict[str, Any] | int:
        from runtime.commands.client import Swarm
        from runtime.jobs.event_loop import end_requested

        place, swarm = self._place, Swarm(crew.bus, owner=True)
        if self._asked is not None:
            place.session = await swarm.submit(self._asked, folder=self._folder)
        if not place.quiet:
            place.call.note(f"Session {place.session}")
        async with end_requested() as ending:
            done = asyncio.create_task(self._followed(swarm))
            others = [asyncio.create_task(one.wait()) for one in (ending, children.misfit)]
            await asyncio.wait([done, *others], timeout=self._within, return_when=asyncio.FIRST_COMPLETED)
            for task in others:
                task.cancel()
            if done.done():
                return done.result()
            done.cancel()
        return self._interrupted(children, ended=ending.is_set())

    async def _followed(self, swarm: Swarm) -> dict[str, Any]:
        # Plain lines: a board that is redrawn would paint over the prompt of a debugger.
        with progress(sys.stderr, live=False, quiet=self._place.quiet) as shown:
            async for line in swarm.events(self._place.session, follow=True):
                shown.take(line)
        return await swarm.session(self._place.session)

    def _interrupted(self, children: InlineJobs, *, ended: bool) -> int:
        if children.misfit.is_set() and children.wanted:
            return children.wanted
        session = self._place.session
        go_on = f"swarm resume {session} --here"
        if ended:
            self._place.call.note(f"Session {session} waits in its files. Let it go on: {go_on}")
            raise KeyboardInterrupt
        raise TimedOut(f"session {session} has not ended within {self._within:g} s.", cure=f"Let it go on: {go_on}")
