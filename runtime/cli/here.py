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
from typing import TYPE_CHECKING, NoReturn

from bus import subjects
from contracts.errors import Failed, InvalidInput, Refused, SwarmError, TimedOut
from contracts.ids import session_for
from runtime.api.session_source import resolve_session
from runtime.cli.call import Call, Json
from runtime.cli.exit_codes import answer_session
from runtime.engine import environment
from runtime.jobs.job import claimed_threads
from runtime.views.progress import progress

if TYPE_CHECKING:
    from contracts.replies import SessionReply
    from runtime.api.swarm import Swarm
    from runtime.jobs.inline import InlineJobs

HANDED = "SWARM_HERE"
"""Set in a process that was started again: the session that it goes on with, or `-`."""


class LocalSwarm:
    """This process as the place of one session: which one, and for how many threads it is sealed."""

    def __init__(self, call: Call, threads: int = 1, *, quiet: bool = False) -> None:
        if call.settings.url or call.settings.creds:
            raise InvalidInput("--here needs no server.", cure="Leave --url and --creds out.")
        self.call, self.quiet = call, quiet
        handed, sealed_for = os.environ.pop(HANDED, ""), os.environ.get("OMP_NUM_THREADS", "")
        if not (sealed_for.isdigit() and environment.is_sealed(profile="exact", threads=int(sealed_for))):
            if handed:
                raise Failed("this process cannot be sealed.", cure="Run it without --here; see: swarm doctor")
            self.start_again(threads, "-")
        self.threads = int(sealed_for)
        self.session = handed.strip("-")

    def start_again(self, threads: int, session: str) -> NoReturn:
        """Become a process that was started with the environment for so many threads."""
        sys.stdout.flush()
        sys.stderr.flush()
        sealed = environment.sealed(os.environ, profile="exact", threads=threads) | {HANDED: session}
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], sealed)  # noqa: S606 - ourselves once more

    def carry(self, request: Json | None, within: float | None, folder: Path | None = None) -> SessionReply:
        """The summary of the session once it has ended: that of a request, or the one that goes on.

        A request may name files in the folder.
        """
        from runtime.host import logs

        logs.configure("warning", as_json=self.call.settings.log_json)
        # With --json, what user code prints goes to stderr, because stdout holds the JSON answer alone.
        with contextlib.redirect_stdout(sys.stderr) if self.call.json else contextlib.nullcontext():
            summary = asyncio.run(self._carry(request, within, folder))
        if isinstance(summary, int):
            self.start_again(summary, self.session)
        return summary

    async def _carry(self, request: Json | None, within: float | None, folder: Path | None) -> SessionReply | int:
        """The summary, or the number of threads for which the process must be sealed instead."""
        from runtime.api.swarm import Swarm
        from runtime.host import local_swarm
        from runtime.jobs.inline import InlineJobs

        settings = self.call.settings
        if request and (name := request.get("request_id")):
            self.session = session_for(name, local_swarm.PARTITION)
        children = InlineJobs(threads=self.threads, stall_after=settings.stall_after_seconds)
        error: BaseException | None = None
        async with local_swarm.run_local_swarm(settings, children, self.session) as node:
            try:
                swarm = Swarm(node.bus, owner=True)
                if request is not None:
                    self.session = await swarm.submit(request, folder=folder)
                if not self.quiet:
                    self.call.note(f"Session {self.session}")
                return await self._watch_until(swarm, children, within)
            except (SwarmError, KeyboardInterrupt) as raised:
                # The others end in good order first.
                error = raised
        raise error

    async def _watch_until(self, swarm: Swarm, children: InlineJobs, within: float | None) -> SessionReply | int:
        """As `_carry`; watches until the session has ended, or something else ends this."""
        from runtime.jobs.event_loop import end_requested

        async def watch() -> SessionReply:
            # Plain lines: a board that is redrawn would paint over the prompt of a debugger.
            with progress(sys.stderr, live=False, quiet=self.quiet) as shown:
                async for line in swarm.events(self.session, follow=True):
                    shown.take(line)
            return await swarm.session(self.session)

        async with end_requested() as ending:
            done = asyncio.create_task(watch())
            others = [asyncio.create_task(event.wait()) for event in (ending, children.misfit)]
            await asyncio.wait([done, *others], timeout=within, return_when=asyncio.FIRST_COMPLETED)
            for task in others:
                task.cancel()
            if done.done():
                return done.result()
            done.cancel()
        if children.misfit.is_set() and children.wanted:
            return children.wanted
        go_on = f"swarm resume {self.session} --here"
        if ending.is_set():
            self.call.note(f"Session {self.session} waits in its files. Let it go on: {go_on}")
            raise KeyboardInterrupt
        raise TimedOut(f"session {self.session} has not ended within {within:g} s.", cure=f"Let it go on: {go_on}")


def run_here(
    call: Call,
    request: str,
    overrides: tuple[str, ...],
    request_id: str | None,
    timeout: float | None,
    *,
    quiet: bool,
) -> int:
    """`swarm run REQUEST --here`: train in this process and print the outcome; the exit code."""
    from runtime.api.request_file import STDIN, folder, read_resolved

    # A pipe is read only once the process is sealed, for then it is empty.
    resolved = None if request == STDIN else read_resolved(request, overrides, request_id)
    # What is `auto`, or no number of threads to begin with, is found out, or told, once the process is up.
    local = LocalSwarm(call, claimed_threads(resolved["training"]["threads"] if resolved else "auto"), quiet=quiet)
    # What was started again goes on with its session.
    resolved = None if local.session else resolved or read_resolved(request, overrides, request_id)
    return answer_session(call, local.carry(resolved, timeout, folder(request)))


def resume_here(call: Call, name: str) -> int:
    """`swarm resume S --here`: carry a session that was begun so to its end, and print the outcome; the exit code."""
    from runtime.host.local_swarm import PARTITION
    from runtime.views.summaries import Summaries
    from runtime.views.view import ended

    archive = Summaries(call.home)
    session = resolve_session(call, name, archive)
    if subjects.partition(session) != PARTITION:
        raise Refused(f"{session} was begun in a swarm.", cure="Let it go on there: swarm up -d")
    state = archive.read(session).history.state
    if ended(state):
        return answer_session(call, archive.session(session))
    local = LocalSwarm(call, state.training.claim.resolved["threads"] if state.training.claim else 1)
    local.session = session
    return answer_session(call, local.carry(None, None))
