"""`swarm agents`, `agent`, `dlq`: who is in the swarm, agents of one's own, and what handlers could not do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import click

from contracts.errors import SwarmError
from contracts.event import BUILT_IN
from contracts.ids import PARTITION
from runtime.cli.call import Call, calling, command, remember, shared
from runtime.cli.output import style, table

if TYPE_CHECKING:
    from contracts.keyring import Key
    from runtime.host.single_agent import AgentIdentity
    from runtime.node.agent import Agent


SILENT_SECONDS = 15.0
"""Three heartbeats."""


@command("agents")
def agents(call: Call) -> None:
    """List the built-in agents and the guests that were admitted."""
    from runtime.node import roster

    running, heard = _running_agents(call), call.wait(_heard_roles(call)) if call.up else set()
    found = [
        _describe_agent(kind, running.get(name), elsewhere=name in heard) for name, kind in roster.load_all().items()
    ]
    found += [_describe_guest(key, heard) for key in _guests(call)]
    call.result({"agents": found}, lambda: _agents_page(found))


def _running_agents(call: Call) -> dict[str, dict[str, Any]]:
    host = call.home.host()
    return {one["name"]: one for one in host.agents} if host is not None and host.alive else {}


def _describe_agent(kind: type[Agent], running: dict[str, Any] | None, *, elsewhere: bool) -> dict[str, Any]:
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


async def _heard_roles(call: Call) -> set[str]:
    """The roles whose heartbeat the swarm has heard lately."""
    async with call.swarm() as found:
        roster = (await found.command("status"))["roster"]
        return {one["name"] for one in roster if one["seen"] < SILENT_SECONDS}


def _describe_guest(key: Key, heard: set[str]) -> dict[str, Any]:
    name, running = key.role.removeprefix("guest_"), key.role in heard
    about = f"admitted with key {key.id}"
    seen = {"name": name, "guest": True, "about": about, "hears": list(key.hears), "says": []}
    return seen | {"running": running, "ready": running, "lag": None}


def _agents_page(found: list[dict[str, Any]]) -> str:
    return "\n".join(_paragraph(one) for one in found)


def _paragraph(one: dict[str, Any]) -> str:
    lines = [f"{style(one['name'], bold=True)} ({_agent_state(one)}): {one['about']}"]
    lines += [f"    {what}  {', '.join(one[what])}" for what in ("hears", "says") if one[what]]
    return "\n".join(lines)


def _agent_state(one: dict[str, Any]) -> str:
    state = "ready" if one["ready"] else ("starting" if one["running"] else "down")
    return f"guest, {state}" if one["guest"] else state


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

    names = [*hears, *(_hears(roster.load(source)) if source else ())]
    for unknown, nearest in misheard(hears):
        call.note(f"Nobody of ours says {unknown!r}; did you mean {nearest!r}?")
    made = call.wait(_admit(call, name, names))
    made = {**made, "hears": names}
    line = f"swarm agent run {source or 'PATH:CLASS'}" + (f" --name {name}" if source else "")
    call.result(made, f"Agent {name!r} may speak in lane {made['lane']}; credentials: {made['creds']}\nRun it: {line}")


@command("run", short_help="Run one agent here until Ctrl-C.")
@click.argument("which", metavar="NAME|PATH:CLASS")
@click.option("--name", help="The name under which a guest was admitted (default: the class's role).")
def agent_run(call: Call, *, which: str, name: str | None) -> None:
    """Run one agent here until Ctrl-C: a built-in role beside a host, or a guest from its file.

    A guest needs no home: --creds names the file that `swarm agent new` wrote, and --url another address of the bus.
    """
    from runtime.host import single_agent
    from runtime.node import roster

    kind = roster.load(which)
    own = name or kind.role
    if own not in BUILT_IN and _admitted_here(call, own):
        call.wait(_admit(call, own, _hears(kind)))
    call.wait(single_agent.run_agent(call.settings, own, kind, ready=lambda found: _tell_agent(call, found, kind)))


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


def _admitted_here(call: Call, name: str) -> bool:
    """Whether the swarm of this home runs and knows the guest; if so, it is told again what the guest hears."""
    from runtime.commands.guests import credentials

    elsewhere = call.settings.url or call.settings.creds
    return not elsewhere and call.up and credentials(call.home, name).exists()


async def _admit(call: Call, name: str, hears: Iterable[str]) -> dict[str, Any]:
    async with call.swarm() as found:
        return await found.command("admit", name=name, hears=list(hears))


def _tell_agent(call: Call, found: AgentIdentity, kind: type[Agent]) -> None:
    value = {"lane": found.lane, "url": found.url, "hears": _hears(kind), "says": [one.wire for one in kind.says()]}
    call.result(value, f"{kind.__name__} listens at {found.url} and speaks in lane {found.lane}. Ctrl-C ends it.")


agent.add_command(agent_new)
agent.add_command(agent_run)


@click.group("dlq", invoke_without_command=True)
@shared
@click.pass_context
def dlq(context: click.Context, /, **options: Any) -> None:
    """Show recorded handler failures and messages that are no facts (with no swarm up, those in the files)."""
    if context.invoked_subcommand is None:
        calling(_list_failures)(**options)
    else:
        from runtime.cli.call import remember

        remember(options)


def _list_failures(call: Call) -> None:
    found = call.wait(_from_swarm(call)) if call.up else _from_files(call)
    call.result(found, lambda: _dlq_page(found))


async def _from_swarm(call: Call) -> dict[str, Any]:
    async with call.swarm() as found:
        return await found.command("dlq")


def _from_files(call: Call) -> dict[str, Any]:
    from runtime.log.archive import Archive

    archive = Archive(call.home)
    letters: list[dict[str, Any]] = []
    voids: list[dict[str, Any]] = []
    for session in archive.ids():
        try:
            kept = archive.read(session)
        except SwarmError as error:
            call.note(f"{session} is left out: {error.message}")
            continue
        for id_, seen in kept.history.state.failures.items():
            said = {"role": seen.role, "handler": seen.handler, "error": seen.error}
            letters.append({"session": session, "failure": id_} | said)
        voids += [
            {"seq": void.seq, "subject": void.subject, "reason": str(void.reason), "detail": void.detail}
            for void in kept.voids
        ]
    return {"letters": letters, "voids": voids}


def _dlq_page(found: dict[str, Any]) -> str:
    letters = [
        [one["failure"], one["session"], f"{one['role']}.{one['handler']}", one["error"]] for one in found["letters"]
    ]
    voids = [[str(one["seq"]), one["reason"], one["subject"], one["detail"]] for one in found["voids"]]
    blocks = [table(("failure", "session", "handler", "error"), letters) if letters else "No handler has given up."]
    blocks += [table(("seq", "void because", "subject", "detail"), voids) if voids else "Every message was admitted."]
    return "\n\n".join(blocks)


@command("redrive", short_help="Have a handler that failed try once more.")
@click.argument("failure", metavar="FAILURE")
def redrive(call: Call, *, failure: str) -> None:
    """Have the handler whose failure this is (an id that `swarm dlq` shows) try once more."""
    answer = call.wait(_redrive(call, failure))
    call.result(answer, f"{failure} is tried again in session {answer['session']}.")


async def _redrive(call: Call, failure: str) -> dict[str, Any]:
    async with call.swarm() as found:
        return await found.command("redrive", failure=failure)


dlq.add_command(redrive)
dlq.add_command(command("list", help="Show failures and voids.")(_list_failures))
