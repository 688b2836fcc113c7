"""`swarm agents`: who is in the swarm, what each hears and says, and whether it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from runtime.cli.call import Call, command

if TYPE_CHECKING:
    from contracts.keyring import Key
    from runtime.agent import Agent


@command("agents")
def agents(call: Call) -> None:
    """List the built-in agents and the guests that were admitted."""
    from runtime import roster

    running = _running(call)
    found = [_described(kind, running.get(name)) for name, kind in roster.load_all().items()]
    found += [_guest(key) for key in _guests(call)]
    call.result({"agents": found}, lambda: _page(found))


def _running(call: Call) -> dict[str, dict[str, Any]]:
    host = call.home.host()
    return {one["name"]: one for one in host.agents} if host is not None and host.alive else {}


def _described(kind: type[Agent], running: dict[str, Any] | None) -> dict[str, Any]:
    about = (kind.__doc__ or "").strip().splitlines()
    return {
        "name": kind.role,
        "guest": False,
        "about": about[0] if about else "",
        "hears": [event.wire for event in kind.hears()],
        "says": [event.wire for event in kind.says()],
        "running": running is not None,
        "ready": bool(running and running["ready"]),
        "lag": running["lag"] if running else None,
    }


def _guests(call: Call) -> tuple[Key, ...]:
    from contracts.ids import PARTITION
    from runtime.archive import Archive

    ring = Archive(call.home).ring(PARTITION)
    return ring.admission.keyring().guests() if ring else ()


def _guest(key: Key) -> dict[str, Any]:
    name = key.role.removeprefix("guest_")
    about = f"admitted with key {key.id}"
    return {"name": name, "guest": True, "about": about, "hears": list(key.hears), "says": [], "running": None} | {
        "ready": None,
        "lag": None,
    }


def _page(found: list[dict[str, Any]]) -> str:
    return "\n".join(_paragraph(one) for one in found)


def _paragraph(one: dict[str, Any]) -> str:
    lines = [f"{click.style(one['name'], bold=True)} ({_state(one)}): {one['about']}"]
    lines += [f"    {what}  {', '.join(one[what])}" for what in ("hears", "says") if one[what]]
    return "\n".join(lines)


def _state(one: dict[str, Any]) -> str:
    if one["guest"]:
        return "guest"
    return "ready" if one["ready"] else ("starting" if one["running"] else "down")
