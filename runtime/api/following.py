"""A session shown to a person until it has ended; watching changes nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contracts.errors import TimedOut

if TYPE_CHECKING:
    from contracts.replies import SessionReply
    from runtime.api.home_context import HomeContext
    from runtime.api.session_source import HomeFiles
    from runtime.api.swarm import Swarm


async def follow(
    context: HomeContext, source: Swarm | HomeFiles, session: str, within: float | None, *, quiet: bool = False
) -> SessionReply:
    """Show the session on stderr until it has ended; its summary. `TimedOut` when that takes too long."""
    import asyncio

    try:
        async with asyncio.timeout(within):
            with context.progress(quiet=quiet) as shown:
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


async def submit_and_follow(
    context: HomeContext,
    request: Mapping[str, Any],
    folder: Path,
    within: float | None = None,
    *,
    quiet: bool = False,
    kind: str = "training",
    request_id: str | None = None,
) -> SessionReply:
    """Submit a request or a search and follow it until it has ended: its summary."""
    async with context.swarm() as swarm:
        session = await swarm.submit(request, request_id=request_id, kind=kind, folder=folder)
        if not quiet:
            context.note(f"{'Search' if kind == 'search' else 'Session'} {session}")
        return await follow(context, swarm, session, within, quiet=quiet)


async def submit(
    context: HomeContext,
    request: Mapping[str, Any],
    folder: Path,
    *,
    kind: str = "training",
    request_id: str | None = None,
) -> str:
    """Submit a request or a search and return at once: the id of its session."""
    async with context.swarm() as swarm:
        return await swarm.submit(request, request_id=request_id, kind=kind, folder=folder)


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
