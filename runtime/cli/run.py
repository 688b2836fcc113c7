"""`swarm run`: from a request to its outcome in one command; the swarm stays up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from runtime.cli import wording
from runtime.cli.call import SECONDS, Call, command
from runtime.cli.submit import request_options
from runtime.cli.wait import outcome
from runtime.cli.watch import followed, quiet_option
from runtime.jobs.profiles import claimed_threads


@command("run")
@request_options
@click.option("--timeout", metavar="SECONDS", type=SECONDS, help="Stop waiting after this long (exit code 124).")
@click.option("--here", is_flag=True, help="In this process, without a server: breakpoints in your code are reached.")
@quiet_option
def run(
    call: Call,
    *,
    request: str,
    overrides: tuple[str, ...],
    request_id: str | None,
    timeout: float | None,
    here: bool,
    quiet: bool,
) -> int:
    """Train as REQUEST says: start the swarm if none is up, submit, show progress, and tell the outcome.

    The swarm stays up. Ctrl-C stops watching; the session goes on. With --here the same agents work in this process
    on a bus in memory, for the same weights; Ctrl-C pauses the session.
    """
    if here:
        return _here(call, request, overrides, request_id, timeout, quiet=quiet)
    from runtime.api.request_file import folder, judged

    asked = judged(request, overrides, request_id)
    bring_up(call)
    seen = call.wait(_run(call, asked, folder(request), timeout, quiet=quiet))
    call.result(seen, lambda: wording.summary(seen))
    return outcome(seen)


def _here(
    call: Call,
    request: str,
    overrides: tuple[str, ...],
    request_id: str | None,
    timeout: float | None,
    *,
    quiet: bool,
) -> int:
    from runtime.api.request_file import STDIN, folder, judged
    from runtime.cli.here import LocalSwarm

    # A pipe is read only once the process is sealed, for then it is empty.
    asked = None if request == STDIN else judged(request, overrides, request_id)
    # What is `auto`, or no number of threads to begin with, is found out, or told, once the process is up.
    place = LocalSwarm(call, claimed_threads(asked["training"]["threads"] if asked else "auto"), quiet=quiet)
    # What was started again goes on with its session.
    seen = place.carry(
        None if place.session else asked or judged(request, overrides, request_id), timeout, folder(request)
    )
    call.result(seen, lambda: wording.summary(seen))
    return outcome(seen)


def bring_up(call: Call) -> None:
    """Start the swarm of this home unless it is up, or another was named."""
    from runtime.api import hosting

    if not (call.settings.url or call.settings.creds) and not hosting.ready(call.home.host()):
        call.note(f"Starting the swarm of {call.home.root} ...")
        hosting.ensure(call)


async def _run(call: Call, asked: dict[str, Any], folder: Path, within: float | None, *, quiet: bool) -> dict[str, Any]:
    async with call.swarm() as found:
        session = await found.submit(asked, folder=folder)
        if not quiet:
            call.note(f"Session {session}")
        return await followed(call, found, session, within, quiet=quiet)
