"""`swarm agents`: who is in the swarm, what each hears and says, and whether it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from contracts.ids import PARTITION
from runtime.cli.call import Call, command
from runtime.cli.terminal import style

if TYPE_CHECKING:
    from contracts.keyring import Key
    from runtime.node.agent import Agent


SILENT_SECONDS = 15.0
"""Three heartbeats."""


@command("agents")
def agents(call: Call) -> None:
    """List the built-in agents and the guests that were admitted."""
    from runtime.node import roster

    running, heard = _running(call), call.wait(_heard(call)) if call.up else set()
    found = [_described(kind, running.get(name), elsewhere=name in heard) for name, kind in roster.load_all().items()]
    found += [_guest(key, heard) for key in _guests(call)]
    call.result({"agents": found}, lambda: _page(found))


def _running(call: Call) -> dict[str, dict[str, Any]]:
    host = call.home.host()
    return {one["name"]: one for one in host.agents} if host is not None and host.alive else {}


def _described(kind: type[Agent], running: dict[str, Any] | None, *, elsewhere: bool) -> dict[str, Any]:
    about = (kind.__doc__ or "").strip().splitlines()
    return {
        "name": kind.role,
        "guest": False,
        "about": about[0] if about else "",
        "hears": [event.wire for event in kind.hears()],
        "says": [event.wire for event in kind.says()],
        "running": running is not None or elsewhere,
        "ready": bool(running["ready"]) if running else elsewhere,
        "lag": running["lag"] if running else None,
    }


def _guests(call: Call) -> tuple[Key, ...]:
    from runtime.log.archive import Archive

    ring = Archive(call.home).ring(PARTITION)
    return ring.admission.keyring().guests() if ring else ()


async def _heard(call: Call) -> set[str]:
    """The roles whose heartbeat the swarm has heard lately."""
    async with call.swarm() as found:
        roster = (await found.command("status"))["roster"]
        return {one["name"] for one in roster if one["seen"] < SILENT_SECONDS}


def _guest(key: Key, heard: set[str]) -> dict[str, Any]:
    name, running = key.role.removeprefix("guest_"), key.role in heard
    about = f"admitted with key {key.id}"
    seen = {"name": name, "guest": True, "about": about, "hears": list(key.hears), "says": []}
    return seen | {"running": running, "ready": running, "lag": None}


def _page(found: list[dict[str, Any]]) -> str:
    return "\n".join(_paragraph(one) for one in found)


def _paragraph(one: dict[str, Any]) -> str:
    lines = [f"{style(one['name'], bold=True)} ({_state(one)}): {one['about']}"]
    lines += [f"    {what}  {', '.join(one[what])}" for what in ("hears", "says") if one[what]]
    return "\n".join(lines)


def _state(one: dict[str, Any]) -> str:
    state = "ready" if one["ready"] else ("starting" if one["running"] else "down")
    return f"guest, {state}" if one["guest"] else state
