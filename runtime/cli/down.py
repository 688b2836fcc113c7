"""`swarm down`: ends the host of this home in good order."""

from __future__ import annotations

import click

from runtime.cli.call import SECONDS, Call, command


@command("down")
@click.option("--timeout", type=SECONDS, default=60.0, show_default=True, help="Seconds until it is ended by force.")
def down(call: Call, *, timeout: float) -> None:
    """End the swarm of this home. What trains is checkpointed first and resumed by the next `up`."""
    from runtime.jobs import process

    running = _running(call)
    ended = running is not None and process.end(*running, timeout)
    orphan = _end_orphan(call)
    host = call.home.host()
    if host is not None and not host.alive:
        call.home.forget()
    pid = running[0] if ended and running is not None else None
    text = f"The swarm is down (pid {pid})." if ended else "No swarm was up."
    call.result({"was_up": ended, "pid": pid, "orphan": orphan}, text + _about(orphan))


def _running(call: Call) -> tuple[int, int] | None:
    """Pid and start time of the host, also of one that holds the home and has not said yet that it is ready."""
    from runtime.jobs import process

    host = call.home.host()
    if host is not None and host.alive:
        return host.pid, host.start_time
    holder = call.home.holder()
    return holder if holder is not None and process.alive(*holder) else None


def _end_orphan(call: Call) -> int | None:
    """A server that outlived its host is ended too; its pid, or None when there is none."""
    from bus.server import end_orphan, left_by

    left = left_by(call.home.root)
    if left is None or not left.alive():
        return None
    return left.pid if call.wait(end_orphan(left)) else None


def _about(orphan: int | None) -> str:
    return f" A server that its host had left over was ended (pid {orphan})." if orphan else ""
