"""`swarm run`, `submit`, `tune`, `watch`, `wait`: work is handed to the swarm, and shown until it has ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from runtime.api import following
from runtime.api.session_source import ask_reader, find
from runtime.cli.call import SECONDS, Call, command, session_argument
from runtime.cli.exit_codes import answer_session
from runtime.cli.host import bring_up

if TYPE_CHECKING:
    from contracts.replies import SessionReply
    from runtime.api.session_source import HomeFiles
    from runtime.api.swarm import Swarm


quiet_option = click.option("-q", "--quiet", is_flag=True, help="Tell nothing but trouble before the end.")


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
        from runtime.cli.here import run_here

        return run_here(call, request, overrides, request_id, timeout, quiet=quiet)
    from runtime.api.request_file import folder, read_resolved

    resolved = read_resolved(request, overrides, request_id)
    bring_up(call)
    training = following.submit_and_follow(call, resolved, folder(request), timeout, quiet=quiet)
    return answer_session(call, call.wait(training))


@command("submit")
@request_options
def submit(call: Call, *, request: str, overrides: tuple[str, ...], request_id: str | None) -> None:
    """Submit REQUEST (a YAML, TOML or JSON file, or - for stdin) and return at once."""
    from runtime.api.request_file import folder, read_resolved

    resolved = read_resolved(request, overrides, request_id)
    session = call.wait(following.submit(call, resolved, folder(request)))
    call.result({"session": session}, session)


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
    from runtime.api.request_file import folder, read_search

    resolved = read_search(search, overrides)
    if detach:
        session = call.wait(following.submit(call, resolved, folder(search), kind="search", request_id=request_id))
        call.note(f"Search {session}")
        call.result({"session": session}, session)
        return 0
    bring_up(call)
    searching = following.submit_and_follow(
        call, resolved, folder(search), timeout, kind="search", request_id=request_id
    )
    return answer_session(call, call.wait(searching))


@command("watch")
@session_argument
@click.option("--timeout", metavar="SECONDS", type=SECONDS, help="Give up after this long (exit code 124).")
@quiet_option
def watch(call: Call, *, session: str, timeout: float | None, quiet: bool) -> int:
    """Follow session S live until it has ended; Ctrl-C stops watching and nothing else."""

    async def watched(source: Swarm | HomeFiles) -> SessionReply:
        return await following.follow(call, source, await find(source, session), timeout, quiet=quiet)

    return answer_session(call, ask_reader(call, watched))


@command("wait")
@session_argument
@click.option("--timeout", metavar="SECONDS", type=SECONDS, help="Give up after this long (exit code 124).")
def wait(call: Call, *, session: str, timeout: float | None) -> int:
    """Wait until session S has ended: exit code 0 when it completed, 1 when it failed or was cancelled.

    Of an audit: 0 when its verdict is pass, 3 when it is another.
    """

    async def ended(source: Swarm | HomeFiles) -> SessionReply:
        return await source.wait(await find(source, session), timeout)

    return answer_session(call, ask_reader(call, ended))
