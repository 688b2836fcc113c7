"""`swarm watch`, `wait`: a session until it has ended; watching changes nothing."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import click

from contracts.errors import TimedOut
from runtime.cli import output
from runtime.cli.call import SECONDS, Call, command, session_argument
from runtime.cli.exit_codes import session_exit_code
from runtime.cli.session_source import find, reader
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
    seen = call.wait(_watch(call, session, timeout, quiet=quiet))
    call.result(seen, lambda: output.summary_text(seen))
    return session_exit_code(seen)


async def _watch(call: Call, name: str, within: float | None, *, quiet: bool) -> dict[str, Any]:
    async with reader(call) as found:
        return await follow(call, found, await find(found, name), within, quiet=quiet)


@asynccontextmanager
async def _telling_what_it_waits_for(call: Call, found: Swarm | HomeFiles, session: str) -> AsyncIterator[None]:
    """Say once, beside the events, that a session waits: no event tells of what does not happen."""
    import asyncio

    async def look() -> None:
        waits = False
        while (seen := await found.session(session))["state"] in ("requested", "preparing"):
            if waits and seen.get("waits"):
                call.note(f"{session} waits {seen['waits']}")
                return
            waits = bool(seen.get("waits"))
            await asyncio.sleep(1.0)

    looking = asyncio.create_task(look())
    try:
        yield
    finally:
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)


async def follow(
    call: Call, found: Swarm | HomeFiles, session: str, within: float | None, *, quiet: bool = False
) -> dict[str, Any]:
    """Show the session on stderr until it has ended; its summary. `TimedOut` when that takes too long."""
    import asyncio

    try:
        async with asyncio.timeout(within):
            with progress(sys.stderr, live=call.live, quiet=quiet) as shown:
                async with _telling_what_it_waits_for(call, found, session):
                    async for line in found.events(session, follow=True):
                        shown.take(line)
            return await found.session(session)
    except asyncio.CancelledError:
        call.note(f"The session goes on. Watch it: swarm watch {session}; end it: swarm cancel {session}")
        raise
    except TimeoutError:
        raise TimedOut(
            f"session {session} has not ended within {within:g} s; it goes on.",
            cure=f"Wait longer: swarm wait {session}; or end it: swarm cancel {session}",
        ) from None


@command("wait")
@session_argument
@click.option("--timeout", metavar="SECONDS", type=SECONDS, help="Give up after this long (exit code 124).")
def wait(call: Call, *, session: str, timeout: float | None) -> int:
    """Wait until session S has ended: exit code 0 when it completed, 1 when it failed or was cancelled.

    Of an audit: 0 when its verdict is pass, 3 when it is another.
    """
    seen = call.wait(_ended(call, session, timeout))
    call.result(seen, lambda: output.summary_text(seen))
    return session_exit_code(seen)


async def _ended(call: Call, name: str, within: float | None) -> dict[str, Any]:
    async with reader(call) as found:
        return await found.wait(await find(found, name), within)
