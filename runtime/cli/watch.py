"""`swarm watch`, `wait`: a session until it has ended; watching changes nothing."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import click

from contracts.errors import TimedOut
from runtime.cli.call import SECONDS, Call, Json, command, session_argument
from runtime.cli.exit_codes import answer_session
from runtime.cli.session_source import ask_reader, find
from runtime.views.progress import progress

if TYPE_CHECKING:
    from runtime.cli.session_source import HomeFiles
    from runtime.commands.client import Swarm

quiet_option = click.option("-q", "--quiet", is_flag=True, help="Tell nothing but trouble before the end.")


@command("watch")
@session_argument
@click.option("--timeout", metavar="SECONDS", type=SECONDS, help="Give up after this long (exit code 124).")
@quiet_option
def watch(call: Call, *, session: str, timeout: float | None, quiet: bool) -> int:
    """Follow session S live until it has ended; Ctrl-C stops watching and nothing else."""

    async def watched(source: Swarm | HomeFiles) -> Json:
        return await follow(call, source, await find(source, session), timeout, quiet=quiet)

    return answer_session(call, ask_reader(call, watched))


@command("wait")
@session_argument
@click.option("--timeout", metavar="SECONDS", type=SECONDS, help="Give up after this long (exit code 124).")
def wait(call: Call, *, session: str, timeout: float | None) -> int:
    """Wait until session S has ended: exit code 0 when it completed, 1 when it failed or was cancelled.

    Of an audit: 0 when its verdict is pass, 3 when it is another.
    """

    async def ended(source: Swarm | HomeFiles) -> Json:
        return await source.wait(await find(source, session), timeout)

    return answer_session(call, ask_reader(call, ended))


async def follow(
    call: Call, source: Swarm | HomeFiles, session: str, within: float | None, *, quiet: bool = False
) -> Json:
    """Show the session on stderr until it has ended; its summary. `TimedOut` when that takes too long."""
    import asyncio

    try:
        async with asyncio.timeout(within):
            with progress(sys.stderr, live=call.live, quiet=quiet) as shown:
                async with _tell_what_it_waits_for(call, source, session):
                    async for line in source.events(session, follow=True):
                        shown.take(line)
            return await source.session(session)
    except asyncio.CancelledError:
        call.note(f"The session goes on. Watch it: swarm watch {session}; end it: swarm cancel {session}")
        raise
    except TimeoutError:
        raise TimedOut(
            f"session {session} has not ended within {within:g} s; it goes on.",
            cure=f"Wait longer: swarm wait {session}; or end it: swarm cancel {session}",
        ) from None


@asynccontextmanager
async def _tell_what_it_waits_for(call: Call, source: Swarm | HomeFiles, session: str) -> AsyncIterator[None]:
    """Say once, beside the events, that a session waits: no event tells of what does not happen."""
    import asyncio

    async def poll() -> None:
        waits = False
        while (summary := await source.session(session))["state"] in ("requested", "preparing"):
            if waits and summary.get("waits"):
                call.note(f"{session} waits {summary['waits']}")
                return
            waits = bool(summary.get("waits"))
            await asyncio.sleep(1.0)

    polling = asyncio.create_task(poll())
    try:
        yield
    finally:
        polling.cancel()
        await asyncio.gather(polling, return_exceptions=True)
