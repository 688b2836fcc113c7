"""Training from Python: a request in, a session's handle out. The swarm is started if none is up, and stays up."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from contracts.errors import Failed, SwarmError, TimedOut, error_of
from runtime.api import hosting, request_file
from runtime.api.handle import Session, Where
from runtime.api.home_context import HomeContext
from runtime.jobs.event_loop import in_thread


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
    stderr. With `check` a session that does not complete raises `Failed` with the reason and the cure; `wait=False`
    returns as soon as the session is requested.
    """
    submission = _Submission(request, home, request_id)
    submission.bring_up()
    session = in_thread(submission.submit)
    handle = Session(session, home=home)
    if wait:
        in_thread(lambda: submission.follow(session, timeout, shown=progress))
        if check and (seen := handle.summary())["state"] != "completed":
            problem = seen["problem"] or {"message": f"it is {seen['state']}", "cure": "", "frame": ""}
            where = f" (at {problem['frame']})" if problem.get("frame") else ""
            raise Failed(f"session {session} {seen['state']}: {problem['message']}{where}", cure=problem["cure"])
    return handle


class _Submission:
    """A resolved request on its way into a swarm, with the folder in which it may name files."""

    def __init__(self, request: Mapping[str, Any] | str | Path, home: Where, request_id: str | None) -> None:
        from contracts.request import read_request

        about = {"request_id": request_id} if request_id is not None else {}

        self._context = HomeContext(home=str(home) if home is not None else None)
        if isinstance(request, str | Path):
            self._request = request_file.read_resolved(str(request), (), request_id)
            self._folder = request_file.folder(str(request))
        else:
            self._folder = Path.cwd()
            self._request = request_file.absolute(read_request(dict(request) | about).resolved(), self._folder)

    def bring_up(self) -> None:
        """Start the swarm unless one is ready; by a process that ends, so that the host is no child of ours."""
        if (self._context.settings.url or self._context.settings.creds) or hosting.ready(self._context.home.host()):
            return
        command = [sys.executable, "-P", "-m", "runtime.cli.start", "up", "-d", "--json"]
        command += ["--home", str(self._context.home.root)]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if done.returncode:
            raise _start_error(done.stdout, done.stderr)

    async def submit(self) -> str:
        async with self._context.swarm() as swarm:
            return await swarm.submit(self._request, folder=self._folder)

    async def follow(self, session: str, within: float | None, *, shown: bool) -> None:
        from runtime.views.progress import PlainProgress
        from runtime.views.progress import progress as shows

        async with self._context.swarm() as swarm:
            if not shown:
                await swarm.wait(session, within)
                return
            with shows(sys.stderr, live=True) if self._context.live else PlainProgress(_print_line) as board:
                try:
                    async with asyncio.timeout(within):
                        async for line in swarm.events(session, follow=True):
                            board.take(line)
                except TimeoutError:
                    raise TimedOut(
                        f"{session} has not ended within {within:g} s; it goes on.", cure="Wait on."
                    ) from None


def _start_error(answer: str, log: str) -> SwarmError:
    """The error that a command answered with."""
    try:
        return error_of(orjson.loads(answer.strip().splitlines()[-1])["error"])
    except (orjson.JSONDecodeError, IndexError, KeyError, TypeError):
        return Failed(f"the swarm could not be started: {log.strip()[-500:]}", cure="Look: swarm up")


def _print_line(text: str) -> None:
    # Looked up at each line: a notebook replaces stderr.
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - progress for a person
