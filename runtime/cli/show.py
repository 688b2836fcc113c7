"""`swarm show`: one session now, or as of one of its events."""

from __future__ import annotations

from typing import Any

import click

from runtime.cli import wording
from runtime.cli.call import Call, command
from runtime.cli.named import session_argument
from runtime.cli.reach import reader


@command("show")
@session_argument
@click.option("--at", metavar="SEQ", type=click.IntRange(min=1), help="As of this event (1-based position).")
def show(call: Call, *, session: str, at: int | None) -> None:
    """Show session S: its state, metrics, artifacts, and what is still owed before its seal."""
    if at is None:
        seen = call.wait(_now(call, session))
        call.result(seen, lambda: wording.summary(seen))
        return
    from runtime.cli.replay import folded, page

    then = folded(call, session, at)
    call.result(then, lambda: page(then))


async def _now(call: Call, name: str) -> dict[str, Any]:
    async with reader(call) as found:
        return await found.session(name)
