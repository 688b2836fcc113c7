"""A session shown to a person until it has ended; watching changes nothing."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from contracts.errors import TimedOut
from runtime.views.progress import progress

if TYPE_CHECKING:
    from runtime.api.home_context import HomeContext
    from runtime.api.session_source import HomeFiles
    from runtime.commands.client import Swarm


async def follow(
    context: HomeContext, source: Swarm | HomeFiles, session: str, within: float | None, *, quiet: bool = False
) -> dict[str, Any]:
    """Show the session on stderr until it has ended; its summary. `TimedOut` when that takes too long."""
    import asyncio

    try:
        async with asyncio.timeout(within):
            with progress(sys.stderr, live=context.live, quiet=quiet) as shown:
                async with _tell_what_it_waits_for(context, source, session):
                    async for line in source.events(session, follow=True):
                        shown.take(line)
            return await source.session(session)
    except asyncio.CancelledError:
        context.note(f"The session goes on. Watch it: swarm watch {session}; end it: swarm cancel {session}")
        raise
    except TimeoutError:
        raise TimedOut(
            f"session {session} has not ended within {within:g} s; it goes on.",
            cure=f"Wait longer: swarm wait {session}; or end it: swarm cancel {session}",
        ) from None


@asynccontextmanager
async def _tell_what_it_waits_for(context: HomeContext, source: Swarm | HomeFiles, session: str) -> AsyncIterator[None]:
    """Say once, beside the events, that a session waits: no event tells of what does not happen."""
    import asyncio

    async def poll() -> None:
        waits = False
        while (summary := await source.session(session))["state"] in ("requested", "preparing"):
            if waits and summary.get("waits"):
                context.note(f"{session} waits {summary['waits']}")
                return
            waits = bool(summary.get("waits"))
            await asyncio.sleep(1.0)

    polling = asyncio.create_task(poll())
    try:
        yield
    finally:
        polling.cancel()
        await asyncio.gather(polling, return_exceptions=True)
