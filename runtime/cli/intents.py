"""`swarm pause`, `resume`, `cancel`: wishes about a running session, which may be refused."""

from __future__ import annotations

import click

from bus import subjects
from contracts.errors import Refused
from runtime.cli import wording
from runtime.cli.call import Call, command
from runtime.cli.named import session_argument
from runtime.cli.reach import asked, chosen
from runtime.cli.wait import outcome


@command("pause")
@session_argument
def pause(call: Call, *, session: str) -> None:
    """Ask session S to wait at its next grid step, with its state kept."""
    _wish(call, session, "pause", "will pause")


@command("resume")
@session_argument
@click.option("--here", is_flag=True, help="Carry it to its end in this process, as `run --here` began it.")
def resume(call: Call, *, session: str, here: bool) -> int:
    """Let session S, paused by a person, go on."""
    if here:
        return _here(call, session)
    _wish(call, session, "resume", "will go on")
    return 0


def _here(call: Call, name: str) -> int:
    from runtime.cli.here import LocalSwarm
    from runtime.host.here import PARTITION
    from runtime.views.summaries import Summaries
    from runtime.views.view import ended

    archive = Summaries(call.home)
    session = chosen(call, name, archive)
    if subjects.partition(session) != PARTITION:
        raise Refused(f"{session} was begun in a swarm.", cure="Let it go on there: swarm up -d")
    state = archive.read(session).history.state
    if ended(state):
        seen = archive.session(session)
    else:
        place = LocalSwarm(call, state.claim.resolved["threads"] if state.claim else 1)
        place.session = session
        seen = place.carry(None, None)
    call.result(seen, lambda: wording.summary(seen))
    return outcome(seen)


@command("cancel")
@session_argument
@click.option("--reason", default="", help="Why; it stands in the log.")
def cancel(call: Call, *, session: str, reason: str) -> None:
    """Ask session S to end now; what it has recorded stays."""
    _wish(call, session, "cancel", "will end", reason=reason)


def _wish(call: Call, name: str, verb: str, will: str, **body: str) -> None:
    session, answer = call.wait(asked(call, name, verb, **body))
    call.result({"session": session} | answer, f"Session {session} {will}.")
