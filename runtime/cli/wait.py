"""`swarm wait`: returns when a session has ended, with its outcome as the exit code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from runtime.cli import wording
from runtime.cli.call import SECONDS, Call, command
from runtime.cli.named import session_argument
from runtime.cli.reach import find, reader

NEGATIVE = 3
"""The exit code of a verification that did not hold."""


@command("wait")
@session_argument
@click.option("--timeout", metavar="SECONDS", type=SECONDS, help="Give up after this long (exit code 124).")
def wait(call: Call, *, session: str, timeout: float | None) -> int:
    """Wait until session S has ended: exit code 0 when it completed, 1 when it failed or was cancelled.

    Of an audit: 0 when its verdict is pass, 3 when it is another.
    """
    seen = call.wait(_ended(call, session, timeout))
    call.result(seen, lambda: wording.summary(seen))
    return outcome(seen)


async def _ended(call: Call, name: str, within: float | None) -> dict[str, Any]:
    async with reader(call) as found:
        return await found.wait(await find(found, name), within)


def outcome(seen: Mapping[str, Any]) -> int:
    """The exit code that says how a session ended."""
    if seen["state"] != "completed" or any(one["asked"] for one in seen.get("refused", ())):
        return 1
    return NEGATIVE if seen.get("verdict") not in (None, "pass") else 0
