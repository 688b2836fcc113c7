"""`swarm pause`, `resume`, `cancel`: wishes about a running session, which may be refused."""

from __future__ import annotations

import click

from runtime.cli.call import Call, command
from runtime.cli.named import session_argument
from runtime.cli.reach import asked


@command("pause")
@session_argument
def pause(call: Call, *, session: str) -> None:
    """Ask session S to wait at its next grid step, with its state kept."""
    _wish(call, session, "pause", "will pause")


@command("resume")
@session_argument
def resume(call: Call, *, session: str) -> None:
    """Let session S, paused by a person, go on."""
    _wish(call, session, "resume", "will go on")


@command("cancel")
@session_argument
@click.option("--reason", default="", help="Why; it stands in the log.")
def cancel(call: Call, *, session: str, reason: str) -> None:
    """Ask session S to end now; what it has recorded stays."""
    _wish(call, session, "cancel", "will end", reason=reason)


def _wish(call: Call, name: str, verb: str, will: str, **body: str) -> None:
    session, answer = call.wait(asked(call, name, verb, **body))
    call.result({"session": session} | answer, f"Session {session} {will}.")
