"""`swarm watch`, `wait`: a session until it has ended; watching changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from runtime.api.following import follow
from runtime.api.session_source import ask_reader, find
from runtime.cli.call import SECONDS, Call, command, session_argument
from runtime.cli.exit_codes import answer_session

if TYPE_CHECKING:
    from contracts.replies import SessionReply
    from runtime.api.session_source import HomeFiles
    from runtime.api.swarm import Swarm

quiet_option = click.option("-q", "--quiet", is_flag=True, help="Tell nothing but trouble before the end.")


@command("watch")
@session_argument
@click.option("--timeout", metavar="SECONDS", type=SECONDS, help="Give up after this long (exit code 124).")
@quiet_option
def watch(call: Call, *, session: str, timeout: float | None, quiet: bool) -> int:
    """Follow session S live until it has ended; Ctrl-C stops watching and nothing else."""

    async def watched(source: Swarm | HomeFiles) -> SessionReply:
        return await follow(call, source, await find(source, session), timeout, quiet=quiet)

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
