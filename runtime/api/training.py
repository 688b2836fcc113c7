"""Training from Python: a request in, a session's handle out. The swarm is started if none is up, and stays up."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runtime.api import hosting, request_file
from runtime.api.handle import Session, Where
from runtime.api.home_context import HomeContext


def train(
    request: Mapping[str, Any] | str | Path,
    *,
    home: Where = None,
    request_id: str | None = None,
    wait: bool = True,
    progress: bool = True,
    timeout: float | None = None,
    check: bool = True,
) -> Session:
    """Train as a request (a mapping, or the path of a file) says; the swarm is started if none is up, and stays up.

    The same `request_id` names the same session for ever: asked again, it is not trained again. Progress goes to
    stderr, in a notebook into the cell. With `check` a session that does not complete raises `Failed` with the reason
    and the cure; `wait=False` returns as soon as the session is requested.
    """
    context = HomeContext(home=str(home) if home is not None else None)
    resolved, folder = request_file.resolve(request, request_id)
    hosting.bring_up(context)

    async def submit() -> str:
        async with context.swarm() as swarm:
            return await swarm.submit(resolved, folder=folder)

    session = Session.of(context, context.wait(submit()))
    return session.follow(timeout, progress=progress, check=check) if wait else session
