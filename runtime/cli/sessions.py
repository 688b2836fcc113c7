"""`swarm sessions`, `pause`, `resume`, `cancel`: what was and is trained here, and wishes about it."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import click

from bus import subjects
from contracts.errors import Refused
from runtime.cli import output
from runtime.cli.call import Call, command, session_argument
from runtime.cli.exit_codes import session_exit_code
from runtime.cli.output import plain, state_text, table
from runtime.cli.session_source import reader, resolve_session, send_command

KINDS = ("training", "search", "trial", "export", "audit", "proof")
STATES = ("requested", "preparing", "training", "paused", "finishing", "completed", "failed", "cancelled")

HEAD = ("session", "kind", "name", "state", "step", "best", "age")
_NAME = HEAD.index("name")
_LEAST_NAME, _LEAST_ID = 8, 11
_UNITS = (("d", 86400), ("h", 3600), ("min", 60))


@command("sessions")
@click.option("--kind", type=click.Choice(KINDS), help="Only those of this kind.")
@click.option("--state", "wanted", type=click.Choice(STATES), help="Only those in this state.")
@click.option("-n", "--limit", type=click.IntRange(min=1), help="Only the newest.")
def sessions(call: Call, *, kind: str | None, wanted: str | None, limit: int | None) -> None:
    """List the sessions, newest first; with no swarm up, those in the home's files."""
    every = call.wait(_every(call))
    found = [one for one in every if kind in (None, one["kind"]) and wanted in (None, one["state"])]
    found = sorted(found, key=lambda one: (one["requested_at"], one["session"]), reverse=True)[:limit]
    call.result({"sessions": found}, lambda: _page(found, every, _columns()))


async def _every(call: Call) -> list[dict[str, Any]]:
    async with reader(call) as found:
        return await found.sessions()


def _columns() -> int | None:
    """How many letters a line of the terminal has; None where there is none, and nothing is to be shortened."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def _page(found: list[dict[str, Any]], every: list[dict[str, Any]], columns: int | None) -> str:
    """One line per session; on a terminal with short ids and names, so that it stays one line."""
    if not found:
        return f"None of the {len(every)} sessions." if every else "No sessions yet. Start one: swarm run REQUEST"
    now = datetime.now(UTC)
    ids = [one["session"] for one in found]
    shown = ids if columns is None else short(ids, [one["session"] for one in every])
    rows = [
        [id, one["kind"], _name(one), _state(one), _steps(one), _best(one), age(one["requested_at"], now)]
        for id, one in zip(shown, found, strict=True)
    ]
    page = table(HEAD, rows)
    # What is too much is taken from the names, of which the beginning tells most.
    over = max(len(plain(line)) for line in page.splitlines()) - (columns or sys.maxsize)
    if over <= 0:
        return page
    most = max(_LEAST_NAME, max(len(row[_NAME]) for row in rows) - over)
    return table(HEAD, [[*row[:_NAME], _cut(row[_NAME], most), *row[_NAME + 1 :]] for row in rows])


def short(ids: Sequence[str], known: Sequence[str]) -> list[str]:
    """The beginnings that tell the sessions from all that are known, each as long as the longest that is needed."""
    length = next(
        (size for size in range(_LEAST_ID, 30) if len({one[:size] for one in known}) == len(set(known))), None
    )
    return [one[:length] for one in ids]


def age(moment: str, now: datetime) -> str:
    """How long ago that was, in the largest unit of which there is one."""
    if not moment:
        return ""
    seconds = max(0.0, (now - datetime.fromisoformat(moment)).total_seconds())
    unit, size = next(((unit, size) for unit, size in _UNITS if seconds >= size), ("s", 1))
    return f"{seconds // size:.0f} {unit}"


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _state(one: dict[str, Any]) -> str:
    return state_text(one["state"]) + (" (waits)" if one.get("waits") else "")


def _name(one: dict[str, Any]) -> str:
    fork = one.get("fork")
    return f"{one['name']} (fork of {fork['session'][:11]} at {fork['step']})" if fork else str(one["name"])


def _steps(one: dict[str, Any]) -> str:
    return f"{one['step']}/{one['steps_total']}" if one.get("steps_total") else str(one["step"])


def _best(one: dict[str, Any]) -> str:
    """The best validation loss, or of a search its best value."""
    best = one["metrics"].get("val_loss", one["metrics"].get("best_value"))
    return "" if best is None else f"{best:.4g}"


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
        return _resume_here(call, session)
    _wish(call, session, "resume", "will go on")
    return 0


def _resume_here(call: Call, name: str) -> int:
    from runtime.cli.here import LocalSwarm
    from runtime.host.local_swarm import PARTITION
    from runtime.views.summaries import Summaries
    from runtime.views.view import ended

    archive = Summaries(call.home)
    session = resolve_session(call, name, archive)
    if subjects.partition(session) != PARTITION:
        raise Refused(f"{session} was begun in a swarm.", cure="Let it go on there: swarm up -d")
    state = archive.read(session).history.state
    if ended(state):
        seen = archive.session(session)
    else:
        place = LocalSwarm(call, state.claim.resolved["threads"] if state.claim else 1)
        place.session = session
        seen = place.carry(None, None)
    call.result(seen, lambda: output.summary_text(seen))
    return session_exit_code(seen)


@command("cancel")
@session_argument
@click.option("--reason", default="", help="Why; it stands in the log.")
def cancel(call: Call, *, session: str, reason: str) -> None:
    """Ask session S to end now; what it has recorded stays."""
    _wish(call, session, "cancel", "will end", reason=reason)


def _wish(call: Call, name: str, verb: str, will: str, **body: str) -> None:
    session, answer = call.wait(send_command(call, name, verb, **body))
    call.result({"session": session} | answer, f"Session {session} {will}.")
