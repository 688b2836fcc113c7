"""`swarm up`, `down`, `status`, `doctor`: the host of this home and what is around it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from contracts.errors import Refused, Unreachable, count_of
from runtime.cli.call import SECONDS, Call, Json, command
from runtime.cli.output import cell, pairs, style, table
from runtime.cli.sessions import age

if TYPE_CHECKING:
    from runtime.home.home import HostRecord
    from runtime.host.checkup import CheckResult


@command("up")
@click.option("-d", "--detach", is_flag=True, help="Run in the background; return when everything is ready.")
@click.option("--timeout", type=SECONDS, default=60.0, show_default=True, help="Seconds to wait with --detach.")
@click.option("--data-root", "roots", metavar="DIR", multiple=True, help="A folder that requests may read from.")
@click.option("--without", metavar="ROLE", multiple=True, help="An agent that runs elsewhere: swarm agent run ROLE.")
@click.option(
    "--slots",
    metavar="N",
    type=click.IntRange(1, 10_000),
    help="Sessions that train here at once; else as many as cores, memory and devices hold.",
)
def up(
    call: Call, *, detach: bool, timeout: float, roots: tuple[str, ...], without: tuple[str, ...], slots: int | None
) -> None:
    """Start the swarm of this home: a server, the agents, and whatever was left unfinished.

    In the foreground it runs until Ctrl-C (once: in good order; twice: at once).
    """
    data_roots = tuple(str(Path(root).absolute()) for root in roots) or None
    call.configure(data_roots=data_roots, without=without or None, trainings=slots)
    if detach:
        from runtime.api import hosting

        host = call.home.host()
        if (roots or without or slots) and host is not None and host.alive:
            call.note("The swarm is up already; --data-root, --without and --slots count from its next start.")
        tell_up(call, hosting.ensure(call, timeout))
        return
    host = call.home.host()
    if host is not None and host.alive:
        message = f"the swarm of {str(call.home.root)!r} is up already (pid {host.pid})."
        raise Refused(message, cure="Use it: swarm status; or end it: swarm down")
    from runtime.host import logs
    from runtime.host.host import serve

    logs.configure(call.settings.log_level, as_json=call.settings.log_json)
    call.wait(serve(call.settings, ready=lambda host: tell_up(call, host)))


def tell_up(call: Call, host: HostRecord) -> None:
    """Say that the swarm is up, in the form of `status`."""
    who = f"pid {host.pid}, {count_of(len(host.agents), 'agent')}"
    call.result(describe_host(call, host), f"The swarm is up: {host.url} ({who}). End it: swarm down")


@command("down")
@click.option("--timeout", type=SECONDS, default=60.0, show_default=True, help="Seconds until it is ended by force.")
def down(call: Call, *, timeout: float) -> None:
    """End the swarm of this home. What trains is checkpointed first and resumed by the next `up`."""
    from bus.server import end_orphan, recorded_server
    from runtime.jobs import process

    running = _running(call)
    ended = running is not None and process.end(*running, timeout)
    # A server that outlived its host is ended too.
    server = recorded_server(call.home.root)
    orphan = server.pid if server is not None and server.alive() and call.wait(end_orphan(server)) else None
    host = call.home.host()
    if host is not None and not host.alive:
        call.home.forget()
    pid = running[0] if ended and running is not None else None
    text = f"The swarm is down (pid {pid})." if ended else "No swarm was up."
    text += f" A server that its host had left over was ended (pid {orphan})." if orphan else ""
    call.result({"was_up": ended, "pid": pid, "orphan": orphan}, text)


def _running(call: Call) -> tuple[int, int] | None:
    """Pid and start time of the host, also of one that holds the home and has not said yet that it is ready."""
    from runtime.jobs import process

    host = call.home.host()
    if host is not None and host.alive:
        return host.pid, host.start_time
    holder = call.home.holder()
    return holder if holder is not None and process.alive(*holder) else None


@command("status")
def status(call: Call) -> None:
    """Show the processes of this home's swarm: server, host, agents, children."""
    host = call.home.host()
    if host is None or not host.alive:
        raise Unreachable(f"no swarm runs in {str(call.home.root)!r}.", cure="Start it: swarm up -d")
    status = describe_host(call, host) | {"queue": _queue(call) if host.ready else None}
    call.result(status, lambda: status_page(status))


def _queue(call: Call) -> Json | None:
    """Who may train, as the host tells it; None while its server is away."""
    try:
        queue: Json | None = call.ask("status").get("queue")
    except Unreachable:
        return None
    return queue


def describe_host(call: Call, host: HostRecord) -> Json:
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


def status_page(status: Json) -> str:
    """The host of a home, its agents and its children as the text that `swarm status` prints."""
    server = status["server"]
    top = pairs(
        [
            ("home", status["home"]),
            ("host", f"pid {status['host']['pid']}, {'ready' if status['ready'] else 'not ready yet'}"),
            ("server", server["url"] + (f" (pid {server['pid']})" if server["pid"] else " (not ours)")),
            ("creds", status["creds"]),
        ]
    )
    agents = [[row["name"], "yes" if row["ready"] else "no", str(row["lag"])] for row in status["agents"]]
    children = [[str(row["pid"]), row["purpose"], row["session"]] for row in status["children"]]
    blocks = [top, table(("agent", "ready", "lag"), agents) if agents else ""]
    blocks += [table(("child", "purpose", "session"), children) if children else ""]
    blocks += [queue_page(status["queue"])] if status.get("queue") else []
    return "\n\n".join(block for block in blocks if block)


@command("queue")
def queue(call: Call) -> None:
    """Show which sessions train, and which wait: at which place, and why."""
    told: Json = call.ask("status").get("queue") or {"limit": 0, "slots": [], "length": 0, "waiting": []}
    call.result(told, lambda: queue_page(told))


def queue_page(queue: Json) -> str:
    """Who has a slot and who waits for one, as the text that `swarm queue` and `swarm status` print."""
    now, lines = datetime.now(UTC), queue["slots"] + queue["waiting"]
    rows = [
        [line["session"], str(line["place"] or "trains"), line.get("asker", ""), str(line.get("priority", "")),
         age(line["since"], now), line.get("why", "")]
        for line in lines
    ]  # fmt: skip
    waiting = count_of(queue["length"], "session waits", "sessions wait")
    top = f"{len(queue['slots'])} of {count_of(queue['limit'], 'slot')} taken, {waiting}"
    return f"{top}\n\n{table(('session', 'place', 'asker', 'priority', 'since', 'why'), rows)}" if rows else top


MARKS = {"ok": ("✓", "green"), "warn": ("!", "yellow"), "fail": ("✗", "red")}


@command("doctor")
@click.option("--repair", is_flag=True, help="Set damaged copies of the log aside; the next start writes them anew.")
def doctor(call: Call, *, repair: bool) -> int:
    """Check Python, torch, the server, the home, its keys, logs and blobs. Exit code 1 when something fails."""
    from runtime.home.home import Home
    from runtime.host.checkup import checkup

    moved: list[str] = []
    if repair:
        from runtime.log.recovery import repair as set_aside

        moved = [str(path) for path in set_aside(call.home)]
        for path in moved:
            call.note(f"Set aside: {path}")
        call.note("The next start reads the whole log and completes the files: swarm up -d")
    # Not the call's own home, which is refused when something is wrong with it.
    findings = list(checkup(Home(call.settings.home), call.settings))
    failed = any(finding.level == "fail" for finding in findings)
    answer: Json = {"ok": not failed, "findings": [finding.as_json() for finding in findings]}
    call.result(answer | ({"set_aside": moved} if repair else {}), lambda: "\n".join(map(finding_line, findings)))
    return 1 if failed else 0


def finding_line(finding: CheckResult) -> str:
    """One finding as `swarm doctor` prints it, with its cure below."""
    mark, colour = MARKS[finding.level]
    cure = f"\n    {style('hint:', fg='cyan')} {finding.cure}" if finding.cure else ""
    return f"{style(mark, fg=colour)} {finding.level:4} {finding.what}: {cell(finding.message)}{cure}"


def bring_up(call: Call) -> None:
    """Start the swarm of this home unless it is up, or another was named."""
    from runtime.api import hosting

    if not (call.settings.url or call.settings.creds) and not hosting.ready(call.home.host()):
        call.note(f"Starting the swarm of {call.home.root} ...")
        hosting.ensure(call)
