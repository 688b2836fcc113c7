"""`swarm agents`, `agent`, `dlq`: who is in the swarm, agents of one's own, and what handlers could not do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import click

from contracts.errors import SwarmError
from contracts.ids import PARTITION
from runtime.cli.call import Call, Json, calling, command, remember, shared
from runtime.cli.output import style, table

if TYPE_CHECKING:
    from runtime.host.single_agent import AgentIdentity
    from runtime.node.agent import Agent


SILENT_SECONDS = 15.0
"""Three heartbeats."""


@command("agents")
def agents(call: Call) -> None:
    """List the built-in agents and the guests that were admitted."""
    from runtime.log.archive import Archive
    from runtime.node import roster

    host = call.home.host()
    running = {agent["name"]: agent for agent in host.agents} if host is not None and host.alive else {}
    roster_lines = call.ask("status")["roster"] if call.up else []
    heard = {process["name"] for process in roster_lines if process["seen"] < SILENT_SECONDS}
    described = [_describe(kind, running.get(name), heard=name in heard) for name, kind in roster.load_all().items()]
    ring = Archive(call.home).ring(PARTITION)
    for key in ring.admission.keyring().guests() if ring else ():
        guest = {"name": key.role.removeprefix("guest_"), "guest": True, "about": f"admitted with key {key.id}"}
        guest |= {"hears": list(key.hears), "says": []}
        described.append(guest | {"running": key.role in heard, "ready": key.role in heard, "lag": None})
    call.result({"agents": described}, lambda: agents_page(described))


def _describe(kind: type[Agent], running: Json | None, *, heard: bool) -> Json:
    """A built-in agent, and what the host of this home says of it; `heard` tells of one that runs elsewhere."""
    about = (kind.__doc__ or "").strip().splitlines()
    return {
        "name": kind.role,
        "guest": False,
        "about": about[0] if about else "",
        "hears": [event.wire for event in kind.hears()],
        "says": [event.wire for event in kind.says()],
        "running": running is not None or heard,
        "ready": bool(running["ready"]) if running else heard,
        "lag": running["lag"] if running else None,
    }


def agents_page(agents: list[Json]) -> str:
    """Agents as the text that `swarm agents` prints: a paragraph for each."""
    lines = []
    for agent in agents:
        own = [f"    says   what it likes, in its own lane guest_{agent['name']}"] if agent["guest"] else []
        state = "ready" if agent["ready"] else ("starting" if agent["running"] else "down")
        state = f"guest, {state}" if agent["guest"] else state
        lines.append(f"{style(agent['name'], bold=True)} ({state}): {agent['about']}")
        lines += [f"    {what}  {', '.join(agent[what])}" for what in ("hears", "says") if agent[what]]
        lines += own
    return "\n".join(lines)


@click.group("agent")
@shared
def agent(**options: Any) -> None:
    """Admit an agent of your own, or run one alone."""
    remember(options)


@command("new", short_help="Admit a guest to the running swarm.")
@click.argument("name", metavar="NAME")
@click.option("--from", "source", metavar="PATH[:CLASS]", help="Its file, from which is read what it hears.")
@click.option("--hears", metavar="EVENT", multiple=True, help="What wakes it, such as resources.summarised.")
def agent_new(call: Call, *, name: str, source: str | None, hears: tuple[str, ...]) -> None:
    """Admit the guest NAME to the running swarm: keys of its own, a lane of its own, no one else's.

    Doing it again changes what it hears and leaves its keys.
    """
    from runtime.node import roster

    kind = roster.load(source) if source else None
    names = [*hears, *(_hears(kind) if kind else ())]
    _warn_of_silence(call, kind)
    for unknown, nearest in misheard(hears):
        call.note(f"Nobody of ours says {unknown!r}; did you mean {nearest!r}?")
    made = call.ask("admit", name=name, hears=names) | {"hears": names}
    line = f"swarm agent run {source or 'PATH:CLASS'}" + (f" --name {name}" if source else "")
    call.result(made, f"Agent {name!r} may speak in lane {made['lane']}; credentials: {made['creds']}\nRun it: {line}")


@command("run", short_help="Run one agent here until Ctrl-C.")
@click.argument("which", metavar="NAME|PATH:CLASS")
@click.option("--name", help="The name under which a guest was admitted (default: the class's role).")
def agent_run(call: Call, *, which: str, name: str | None) -> None:
    """Run one agent here until Ctrl-C: a built-in role beside a host, or a guest from its file.

    A guest needs no home: --creds names the file that `swarm agent new` wrote, and --url another address of the bus.
    Where the swarm of this home runs, it is told what the guest hears now: start it again after a change.
    """
    from contracts.roles import BUILT_IN
    from runtime.commands.guests import credentials
    from runtime.host import single_agent
    from runtime.node import roster

    kind = roster.load(which)
    own = name or kind.role
    here = not (call.settings.url or call.settings.creds) and call.up
    if own not in BUILT_IN and here and credentials(call.home, own).exists():
        # The swarm of this home knows the guest, and is told again what it hears.
        call.ask("admit", name=own, hears=_hears(kind))
        lane, roster_lines = f"guest_{own}", call.ask("status")["roster"]
        if seen := [one["seen"] for one in roster_lines if one["name"] == lane and one["seen"] < SILENT_SECONDS]:
            call.note(
                f"Another {own!r} was heard {min(seen):.0f} s ago. Two at once share the work: each event wakes one."
            )
    _warn_of_silence(call, kind)

    def tell(agent: AgentIdentity) -> None:
        says = [event.wire for event in kind.says()]
        value = {"lane": agent.lane, "url": agent.url, "hears": _hears(kind), "says": says}
        call.result(value, f"{kind.__name__} listens at {agent.url} and speaks in lane {agent.lane}. Ctrl-C ends it.")

    call.wait(single_agent.run_agent(call.settings, own, kind, ready=tell))


def _warn_of_silence(call: Call, kind: type[Agent] | None) -> None:
    """Say which handlers can say nothing, because what they hear ends the session."""
    from contracts.ledger import SessionSealed

    for handler in kind.handlers if kind else ():
        if SessionSealed in handler.hears and handler.says:
            call.note(
                f"{handler.name!r} answers session.sealed, and a sealed session stores no answer: "
                "answer an earlier event, such as training.completed, or return nothing."
            )


def misheard(names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Names of events that none of ours has and that look like one that is; another guest may have them."""
    from contracts.event import SPOKEN
    from runtime.node import roster

    roster.load_all()
    for name in names:
        if name not in SPOKEN and (near := get_close_matches(name, SPOKEN, 1)):
            yield name, near[0]


def _hears(kind: type[Agent]) -> list[str]:
    return [event.wire for event in kind.hears()]


agent.add_command(agent_new)
agent.add_command(agent_run)


@click.group("dlq", invoke_without_command=True)
@shared
@click.pass_context
def dlq(context: click.Context, /, **options: Any) -> None:
    """Show what built-in handlers gave up, and messages that are no facts (with no swarm up, those in the files).

    What guests gave up is not listed: it stands in the sessions, `swarm events S --name handler.failed`.
    """
    if context.invoked_subcommand is None:
        calling(_list_failures)(**options)
    else:
        remember(options)


def _list_failures(call: Call) -> None:
    failures = call.ask("dlq") if call.up else _failures_in_files(call)
    call.result(failures, lambda: failures_page(failures))


def _failures_in_files(call: Call) -> Json:
    from runtime.log.archive import Archive

    archive = Archive(call.home)
    letters: list[Json] = []
    voids: list[Json] = []
    for session in archive.ids():
        try:
            stored = archive.read(session)
        except SwarmError as error:
            call.note(f"{session} is left out: {error.message}")
            continue
        for id, failure in stored.history.state.failures.items():
            about = {"role": failure.role, "handler": failure.handler, "error": failure.error}
            letters.append({"session": session, "failure": id} | about)
        voids += [
            {"seq": void.seq, "subject": void.subject, "reason": str(void.reason), "detail": void.detail}
            for void in stored.voids
        ]
    return {"letters": letters, "voids": voids}


def failures_page(failures: Json) -> str:
    """Handler failures and voids as the text that `swarm dlq` prints."""
    letters = [
        [row["failure"], row["session"], f"{row['role']}.{row['handler']}", row["error"]] for row in failures["letters"]
    ]
    voids = [[str(row["seq"]), row["reason"], row["subject"], row["detail"]] for row in failures["voids"]]
    none = (
        "No built-in handler has given up. Guests' failures are in the sessions: swarm events S --name handler.failed"
    )
    blocks = [table(("failure", "session", "handler", "error"), letters) if letters else none]
    blocks += [table(("seq", "void because", "subject", "detail"), voids) if voids else "Every message was admitted."]
    return "\n\n".join(blocks)


@command("redrive", short_help="Have a handler that failed try once more.")
@click.argument("failure", metavar="FAILURE")
def redrive(call: Call, *, failure: str) -> None:
    """Have the handler whose failure this is (an id that `swarm dlq` shows) try once more."""
    answer = call.ask("redrive", failure=failure)
    call.result(answer, f"{failure} is tried again in session {answer['session']}.")


dlq.add_command(redrive)
dlq.add_command(command("list", help="Show failures and voids.")(_list_failures))
