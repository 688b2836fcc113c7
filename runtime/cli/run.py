"""`swarm run`, `submit`, `tune`: a request or a search is handed to the swarm, and shown until it has ended."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from runtime.cli import output
from runtime.cli.call import SECONDS, Call, command
from runtime.cli.exit_codes import session_exit_code
from runtime.cli.host import bring_up
from runtime.cli.watch import follow, quiet_option
from runtime.jobs.profiles import claimed_threads


def request_options(function: Any) -> Any:
    """Decorator: adds the argument and the options that `submit` and `run` share."""
    for option in (
        click.argument("request", metavar="REQUEST"),
        click.option("--set", "overrides", metavar="A.B=C", multiple=True, help="Change one value; may be repeated."),
        click.option("--request-id", metavar="ID", help="Repeatable: the same id names the same session for ever."),
    ):
        function = option(function)
    return function


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
    from runtime.api.request_file import folder, read_resolved

    asked = read_resolved(request, overrides, request_id)
    bring_up(call)
    seen = call.wait(_run(call, asked, folder(request), timeout, quiet=quiet))
    call.result(seen, lambda: output.summary_text(seen))
    return session_exit_code(seen)


def _here(
    call: Call,
    request: str,
    overrides: tuple[str, ...],
    request_id: str | None,
    timeout: float | None,
    *,
    quiet: bool,
) -> int:
    from runtime.api.request_file import STDIN, folder, read_resolved
    from runtime.cli.here import LocalSwarm

    # A pipe is read only once the process is sealed, for then it is empty.
    asked = None if request == STDIN else read_resolved(request, overrides, request_id)
    # What is `auto`, or no number of threads to begin with, is found out, or told, once the process is up.
    place = LocalSwarm(call, claimed_threads(asked["training"]["threads"] if asked else "auto"), quiet=quiet)
    # What was started again goes on with its session.
    seen = place.carry(
        None if place.session else asked or read_resolved(request, overrides, request_id), timeout, folder(request)
    )
    call.result(seen, lambda: output.summary_text(seen))
    return session_exit_code(seen)


async def _run(call: Call, asked: dict[str, Any], folder: Path, within: float | None, *, quiet: bool) -> dict[str, Any]:
    async with call.swarm() as found:
        session = await found.submit(asked, folder=folder)
        if not quiet:
            call.note(f"Session {session}")
        return await follow(call, found, session, within, quiet=quiet)


@command("submit")
@request_options
def submit(call: Call, *, request: str, overrides: tuple[str, ...], request_id: str | None) -> None:
    """Submit REQUEST (a YAML, TOML or JSON file, or - for stdin) and return at once."""
    from runtime.api import request_file

    session = call.wait(
        _submit(call, request_file.read_resolved(request, overrides, request_id), request_file.folder(request))
    )
    call.result({"session": session}, session)


async def _submit(call: Call, asked: dict[str, Any], folder: Path) -> str:
    async with call.swarm() as found:
        return await found.submit(asked, folder=folder)


@command("tune")
@click.argument("search", metavar="SEARCH")
@click.option("--set", "overrides", metavar="A.B=C", multiple=True, help="Change one value; may be repeated.")
@click.option("--request-id", metavar="ID", help="Repeatable: the same id names the same search for ever.")
@click.option("-d", "--detach", is_flag=True, help="Return as soon as the search is submitted.")
@click.option("--timeout", metavar="SECONDS", type=SECONDS, help="Stop waiting after this long (exit code 124).")
def tune(
    call: Call,
    *,
    search: str,
    overrides: tuple[str, ...],
    request_id: str | None,
    detach: bool,
    timeout: float | None,
) -> int:
    """Submit SEARCH (a YAML, TOML or JSON file, or -) and follow it until its trials are done."""
    from runtime.api.request_file import folder
    from runtime.cli.host import bring_up

    asked = _read_search(search, overrides)
    if not detach:
        bring_up(call)
    seen = call.wait(_tune(call, asked, folder(search), request_id, timeout, detach=detach))
    if detach:
        call.result({"session": seen["session"]}, seen["session"])
        return 0
    call.result(seen, lambda: output.summary_text(seen))
    return session_exit_code(seen)


def _read_search(name: str, overrides: tuple[str, ...]) -> dict[str, Any]:
    """The search in the file with defaults written out; its `base` may be a request or the name of a request's file."""
    from contracts.request.search import read_search
    from runtime.api import request_file

    raw = request_file.read(name)
    base, folder = raw.get("base"), Path(name).parent.absolute() if name != request_file.STDIN else Path.cwd()
    if isinstance(base, str):
        raw["base"] = request_file.read(str(folder / base))
    elif isinstance(base, dict):
        raw["base"] = request_file.absolute(base, folder)
    return read_search(raw, overrides=overrides).resolved()


async def _tune(
    call: Call, asked: dict[str, Any], folder: Path, request_id: str | None, within: float | None, *, detach: bool
) -> dict[str, Any]:
    async with call.swarm() as found:
        session = await found.submit(asked, request_id=request_id, kind="search", folder=folder)
        call.note(f"Search {session}")
        return {"session": session} if detach else await follow(call, found, session, within)
