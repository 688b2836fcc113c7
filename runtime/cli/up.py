"""`swarm up`: the host of this home, in the foreground or in the background."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from contracts.errors import Refused
from runtime.cli.call import SECONDS, Call, command
from runtime.cli.status import described

if TYPE_CHECKING:
    from runtime.home.home import HostRecord


@command("up")
@click.option("-d", "--detach", is_flag=True, help="Run in the background; return when everything is ready.")
@click.option("--timeout", type=SECONDS, default=60.0, show_default=True, help="Seconds to wait with --detach.")
@click.option("--data-root", "roots", metavar="DIR", multiple=True, help="A folder that requests may read from.")
@click.option("--without", metavar="ROLE", multiple=True, help="An agent that runs elsewhere: swarm agent run ROLE.")
def up(call: Call, *, detach: bool, timeout: float, roots: tuple[str, ...], without: tuple[str, ...]) -> None:
    """Start the swarm of this home: a server, the agents, and whatever was left unfinished.

    In the foreground it runs until Ctrl-C (once: in good order; twice: at once).
    """
    call.configure(data_roots=tuple(str(Path(root).absolute()) for root in roots) or None, without=without or None)
    if detach:
        from runtime.api import hosting

        host = call.home.host()
        if (roots or without) and host is not None and host.alive:
            call.note("The swarm is up already; --data-root and --without count from its next start.")
        tell(call, hosting.ensure(call, timeout))
        return
    _refuse_a_second(call)
    from runtime.host import logs
    from runtime.host.host import serve

    logs.configure(call.settings.log_level, as_json=call.settings.log_json)
    call.wait(serve(call.settings, ready=lambda host: tell(call, host)))


def tell(call: Call, host: HostRecord) -> None:
    """Say that the swarm is up, in the form of `status`."""
    who = f"pid {host.pid}, {len(host.agents)} agents"
    call.result(described(call, host), f"The swarm is up: {host.url} ({who}). End it: swarm down")


def _refuse_a_second(call: Call) -> None:
    host = call.home.host()
    if host is not None and host.alive:
        raise Refused(
            f"the swarm of {str(call.home.root)!r} is up already (pid {host.pid}).",
            cure="Use it: swarm status; or end it: swarm down",
        )
