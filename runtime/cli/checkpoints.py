"""`swarm checkpoints`: what was kept of a session, as what, and what became of the rest. It reads the home's files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from runtime.cli import wording
from runtime.cli.call import Call, command
from runtime.cli.named import session_argument
from runtime.cli.reach import chosen
from runtime.cli.terminal import style
from runtime.views.sentences import size

HEAD = ("step", "state", "kept as", "why", "size", "blob", "")


@command("checkpoints")
@session_argument
@click.option("--all", "everything", is_flag=True, help="Also those let go.")
def checkpoints(call: Call, *, session: str, everything: bool) -> None:
    """List the checkpoints of session S: step, state, roles, reason, size. A missing file is told, and exits with 3."""
    from runtime.log.archive import Archive
    from runtime.model import checkpoints as known

    archive = Archive(call.home)
    state = archive.read(chosen(call, session, archive)).history.state
    lines = known.listed(state, call.home.blobs)
    totals = known.totals(lines)
    shown = [one for one in lines if everything or one["state"] != "pruned"]
    call.result({"session": state.id, "checkpoints": lines, **totals}, lambda: _page(shown, totals))
    if any(one["state"] in ("kept", "written") and not one["present"] for one in lines):
        raise click.exceptions.Exit(3)


def _page(lines: list[dict[str, Any]], totals: Mapping[str, Any]) -> str:
    if not lines:
        return "There is no checkpoint yet."
    states = ", ".join(f"{count} {name}" for name, count in totals["states"].items())
    return f"{wording.table(HEAD, [_row(one) for one in lines])}\n{states}; {size(totals['bytes'])} kept"


def _row(one: Mapping[str, Any]) -> tuple[str, ...]:
    segment = f" (segment {one['segment']})" if one["segment"] > 1 else ""
    remarks = [] if one["on_path"] else ["off the path"]
    remarks += ["MISSING"] if one["state"] in ("kept", "written") and not one["present"] else []
    colour = {"corrupt": "red", "pruned": "yellow"}.get(one["state"], "green")
    state = style(one["state"], fg=colour)
    kept_as = ", ".join(one["kept_as"])
    size_text, blob = size(one["bytes"]), one["blob"][:16]
    return f"{one['step']}{segment}", state, kept_as, one["reason"], size_text, blob, ", ".join(remarks)
