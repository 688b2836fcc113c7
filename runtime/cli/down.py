"""`swarm down`: ends the host of this home in good order."""

from __future__ import annotations

import click

from runtime.cli.call import Call, command


@command("down")
@click.option("--timeout", type=float, default=60.0, show_default=True, help="Seconds until it is ended by force.")
def down(call: Call, *, timeout: float) -> None:
    """End the swarm of this home. What trains is checkpointed first and resumed by the next `up`."""
    from runtime.cli import hosting

    host = call.home.host()
    ended = hosting.end(host, timeout) if host is not None and host.alive else False
    orphan = _end_orphan(call)
    if host is not None and not host.alive:
        call.home.forget()
    pid = host.pid if ended and host is not None else None
    text = f"The swarm is down (pid {pid})." if ended else "No swarm was up."
    call.result({"was_up": ended, "pid": pid, "orphan": orphan}, text + _about(orphan))


def _end_orphan(call: Call) -> int | None:
    """A server that outlived its host is ended too; its pid, or None when there is none."""
    from bus.server import end_orphan, left_by

    left = left_by(call.home.root)
    if left is None or not left.alive():
        return None
    return left.pid if call.wait(end_orphan(left)) else None


def _about(orphan: int | None) -> str:
    return f" A server that its host had left over was ended (pid {orphan})." if orphan else ""
