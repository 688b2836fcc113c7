"""`swarm sessions`: what was and is trained here."""

from __future__ import annotations

from typing import Any

import click

from runtime.cli.call import Call, command
from runtime.cli.reach import reader
from runtime.cli.wording import state, table

KINDS = ("training", "search", "trial", "export", "audit", "proof")
STATES = ("requested", "preparing", "training", "paused", "finishing", "completed", "failed", "cancelled")


@command("sessions")
@click.option("--kind", type=click.Choice(KINDS), help="Only those of this kind.")
@click.option("--state", "wanted", type=click.Choice(STATES), help="Only those in this state.")
@click.option("-n", "--limit", type=click.IntRange(min=1), help="Only the newest.")
def sessions(call: Call, *, kind: str | None, wanted: str | None, limit: int | None) -> None:
    """List the sessions, newest first; with no swarm up, those in the home's files."""
    every = call.wait(_every(call))
    found = [one for one in every if kind in (None, one["kind"]) and wanted in (None, one["state"])]
    found = sorted(found, key=lambda one: (one["requested_at"], one["session"]), reverse=True)[:limit]
    call.result({"sessions": found}, lambda: _page(found, len(every)))


async def _every(call: Call) -> list[dict[str, Any]]:
    async with reader(call) as found:
        return await found.sessions()


def _page(found: list[dict[str, Any]], of: int) -> str:
    if not found:
        return f"None of the {of} sessions." if of else "No sessions yet. Start one: swarm run REQUEST"
    rows = [[one["session"], one["kind"], _name(one), _state(one), _steps(one), _loss(one)] for one in found]
    return table(("session", "kind", "name", "state", "step", "val_loss"), rows)


def _state(one: dict[str, Any]) -> str:
    return state(one["state"]) + (" (waits)" if one.get("waits") else "")


def _name(one: dict[str, Any]) -> str:
    fork = one.get("fork")
    return f"{one['name']} (fork of {fork['session'][:11]} at {fork['step']})" if fork else str(one["name"])


def _steps(one: dict[str, Any]) -> str:
    return f"{one['step']}/{one['steps_total']}" if one.get("steps_total") else str(one["step"])


def _loss(one: dict[str, Any]) -> str:
    loss = one["metrics"].get("val_loss")
    return "" if loss is None else f"{loss:.4g}"
