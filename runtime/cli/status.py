"""`swarm status`: what the host of this home last said about itself. It needs no bus."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from contracts.errors import Unreachable
from runtime.cli.call import Call, command
from runtime.cli.wording import pairs, table

if TYPE_CHECKING:
    from runtime.home.home import HostRecord


@command("status")
def status(call: Call) -> None:
    """Show the processes of this home's swarm: server, host, agents, children."""
    host = call.home.host()
    if host is None or not host.alive:
        raise Unreachable(f"no swarm runs in {str(call.home.root)!r}.", cure="Start it: swarm up -d")
    call.result(described(call, host), lambda: _page(described(call, host)))


def described(call: Call, host: HostRecord) -> dict[str, Any]:
    """The host as one object: home, server, process, credentials, agents and children."""
    return {
        "home": str(call.home.root),
        "ready": host.ready,
        "server": {"url": host.url, "pid": host.server_pid},
        "host": {"pid": host.pid},
        "creds": host.creds,
        "agents": host.agents,
        "children": host.children,
    }


def _page(seen: dict[str, Any]) -> str:
    server = seen["server"]
    top = pairs(
        [
            ("home", seen["home"]),
            ("host", f"pid {seen['host']['pid']}, {'ready' if seen['ready'] else 'not ready yet'}"),
            ("server", server["url"] + (f" (pid {server['pid']})" if server["pid"] else " (not ours)")),
            ("creds", seen["creds"]),
        ]
    )
    agents = [[one["name"], "yes" if one["ready"] else "no", str(one["lag"])] for one in seen["agents"]]
    children = [[str(one["pid"]), one["purpose"], one["session"]] for one in seen["children"]]
    blocks = [top, table(("agent", "ready", "lag"), agents) if agents else ""]
    blocks += [table(("child", "purpose", "session"), children) if children else ""]
    return "\n\n".join(block for block in blocks if block)
