"""`swarm sessions`, `pause`, `resume`, `cancel`: what was and is trained here, and wishes about it."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from contracts.kinds import SESSION_KINDS
from runtime.api.session_source import ask_reader, find
from runtime.cli.call import Call, Json, command, session_argument
from runtime.cli.output import plain, state_text, table

if TYPE_CHECKING:
    from contracts.replies import SessionReply

STATES = ("requested", "preparing", "training", "paused", "finishing", "completed", "failed", "cancelled")

HEAD = ("session", "kind", "name", "state", "step", "best", "age")
_NAME = HEAD.index("name")
_LEAST_NAME, _LEAST_ID = 8, 11
_UNITS = (("d", 86400), ("h", 3600), ("min", 60))


@command("sessions")
@click.option("--kind", type=click.Choice(SESSION_KINDS), help="Only those of this kind.")
@click.option("--state", type=click.Choice(STATES), help="Only those in this state.")
@click.option("-n", "--limit", type=click.IntRange(min=1), help="Only the newest.")
def sessions(call: Call, *, kind: str | None, state: str | None, limit: int | None) -> None:
    """List the sessions, newest first; with no swarm up, those in the home's files."""
    every = ask_reader(call, lambda source: source.sessions())
    chosen = [summary for summary in every if kind in (None, summary["kind"]) and state in (None, summary["state"])]
    chosen = sorted(chosen, key=lambda summary: (summary["requested_at"], summary["session"]), reverse=True)[:limit]
    call.result({"sessions": chosen}, lambda: sessions_page(chosen, every, terminal_columns()))


def terminal_columns() -> int | None:
    """How many letters a line of the terminal has; None where there is none, and nothing is to be shortened."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def sessions_page(shown: list[SessionReply], every: list[SessionReply], columns: int | None) -> str:
    """One line per session; on a terminal with short ids and names, so that it stays one line."""
    if not shown:
        return f"None of the {len(every)} sessions." if every else "No sessions yet. Start one: swarm run REQUEST"
    now = datetime.now(UTC)
    ids = [summary["session"] for summary in shown]
    names = ids if columns is None else short(ids, [summary["session"] for summary in every])
    rows = [_row(name, summary, now) for name, summary in zip(names, shown, strict=True)]
    page = table(HEAD, rows)
    # What is too much is taken from the names, of which the beginning tells most.
    over = max(len(plain(line)) for line in page.splitlines()) - (columns or sys.maxsize)
    if over <= 0:
        return page
    most = max(_LEAST_NAME, max(len(row[_NAME]) for row in rows) - over)
    return table(HEAD, [[*row[:_NAME], _cut(row[_NAME], most), *row[_NAME + 1 :]] for row in rows])


def _row(id: str, summary: SessionReply, now: datetime) -> list[str]:
    fork, state, metrics = summary.get("fork"), state_text(summary["state"]), summary["metrics"]
    name = f"{summary['name']} (fork of {fork['session'][:11]} at {fork['step']})" if fork else str(summary["name"])
    state += " (waits)" if summary.get("waits") else ""
    step = str(summary["step"]) + (f"/{summary['steps_total']}" if summary.get("steps_total") else "")
    # The best validation loss, or of a search its best value.
    best = metrics.get("val_loss", metrics.get("best_value"))
    figure = "" if best is None else f"{best:.4g}"
    return [id, summary["kind"], name, state, step, figure, age(summary["requested_at"], now)]


def short(ids: Sequence[str], known: Sequence[str]) -> list[str]:
    """The beginnings that tell the sessions from all that are known, each as long as the longest that is needed."""
    lengths = (length for length in range(_LEAST_ID, 30) if len({id[:length] for id in known}) == len(set(known)))
    length = next(lengths, None)
    return [id[:length] for id in ids]


def age(moment: str, now: datetime) -> str:
    """How long ago that was, in the largest unit of which there is one."""
    if not moment:
        return ""
    seconds = max(0.0, (now - datetime.fromisoformat(moment)).total_seconds())
    unit, size = next(((unit, size) for unit, size in _UNITS if seconds >= size), ("s", 1))
    return f"{seconds // size:.0f} {unit}"


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


@command("pause")
@session_argument
def pause(call: Call, *, session: str) -> None:
    """Ask session S to wait at its next grid step, with its state kept."""
    _ask_session(call, session, "pause", "will pause")


@command("resume")
@session_argument
@click.option("--here", is_flag=True, help="Carry it to its end in this process, as `run --here` began it.")
def resume(call: Call, *, session: str, here: bool) -> int:
    """Let session S, paused by a person, go on."""
    if here:
        from runtime.cli.here import resume_here

        return resume_here(call, session)
    _ask_session(call, session, "resume", "will go on")
    return 0


@command("cancel")
@session_argument
@click.option("--reason", default="", help="Why; it stands in the log.")
def cancel(call: Call, *, session: str, reason: str) -> None:
    """Ask session S to end now; what it has recorded stays."""
    _ask_session(call, session, "cancel", "will end", reason=reason)


proposal_argument = click.argument("proposal", metavar="PROPOSAL")


@command("approve")
@session_argument
@proposal_argument
def approve(call: Call, *, session: str, proposal: str) -> None:
    """Let PROPOSAL of session S, by its number or its event, take effect; `swarm show S` lists those that wait."""

    async def ask() -> tuple[str, str | None]:
        async with call.swarm() as swarm:
            found = await find(swarm, session)
            return found, await swarm.approve(found, proposal)

    found, begun = call.wait(ask())
    will = f"It begins session {begun}." if begun else f"Session {found} will go on with it."
    call.result({"session": found, "begun": begun}, f"Approved. {will}")


@command("reject")
@session_argument
@proposal_argument
@click.option("--reason", default="", help="Why; it stands in the log.")
def reject(call: Call, *, session: str, proposal: str, reason: str) -> None:
    """Let PROPOSAL of session S, by its number or its event, come to nothing."""

    async def ask() -> str:
        async with call.swarm() as swarm:
            found = await find(swarm, session)
            await swarm.reject(found, proposal, reason)
            return found

    found = call.wait(ask())
    call.result({"session": found}, f"Rejected. Session {found} goes on as it is.")


def _ask_session(call: Call, name: str, verb: str, will: str, **body: Any) -> None:
    """Send a wish about one session, and say what it will do."""

    async def ask() -> tuple[str, Json]:
        async with call.swarm() as swarm:
            session = await find(swarm, name)
            return session, await swarm.command(verb, session=session, **body)

    session, answer = call.wait(ask())
    call.result({"session": session} | answer, f"Session {session} {will}.")
