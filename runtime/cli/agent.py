"""`swarm agent`: a stranger's agent is admitted, and any agent is run in a process of its own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import click

from contracts.event import BUILT_IN
from runtime.cli.call import Call, command, remember, shared

if TYPE_CHECKING:
    from runtime.host.single_agent import AgentIdentity
    from runtime.node.agent import Agent


@click.group("agent")
@shared
def agent(**options: Any) -> None:
    """Admit an agent of your own, or run one alone."""
    remember(options)


@command("new", short_help="Admit a guest to the running swarm.")
@click.argument("name", metavar="NAME")
@click.option("--from", "source", metavar="PATH[:CLASS]", help="Its file, from which is read what it hears.")
@click.option("--hears", metavar="EVENT", multiple=True, help="What wakes it, such as resources.summarised.")
def new(call: Call, *, name: str, source: str | None, hears: tuple[str, ...]) -> None:
    """Admit the guest NAME to the running swarm: keys of its own, a lane of its own, no one else's.

    Doing it again changes what it hears and leaves its keys.
    """
    from runtime.node import roster

    names = [*hears, *(_hears(roster.load(source)) if source else ())]
    for unknown, nearest in misheard(hears):
        call.note(f"Nobody of ours says {unknown!r}; did you mean {nearest!r}?")
    made = call.wait(_admitted(call, name, names))
    made = {**made, "hears": names}
    run = f"swarm agent run {source or 'PATH:CLASS'}" + (f" --name {name}" if source else "")
    call.result(made, f"Agent {name!r} may speak in lane {made['lane']}; credentials: {made['creds']}\nRun it: {run}")


@command("run", short_help="Run one agent here until Ctrl-C.")
@click.argument("which", metavar="NAME|PATH:CLASS")
@click.option("--name", help="The name under which a guest was admitted (default: the class's role).")
def run(call: Call, *, which: str, name: str | None) -> None:
    """Run one agent here until Ctrl-C: a built-in role beside a host, or a guest from its file.

    A guest needs no home: --creds names the file that `swarm agent new` wrote, and --url another address of the bus.
    """
    from runtime.host import single_agent
    from runtime.node import roster

    kind = roster.load(which)
    own = name or kind.role
    if own not in BUILT_IN and _admitted_here(call, own):
        call.wait(_admitted(call, own, _hears(kind)))
    call.wait(single_agent.run_agent(call.settings, own, kind, ready=lambda found: _tell(call, found, kind)))


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


async def _admitted(call: Call, name: str, hears: Iterable[str]) -> dict[str, Any]:
    async with call.swarm() as found:
        return await found.command("admit", name=name, hears=list(hears))


def _tell(call: Call, found: AgentIdentity, kind: type[Agent]) -> None:
    value = {"lane": found.lane, "url": found.url, "hears": _hears(kind), "says": [one.wire for one in kind.says()]}
    call.result(value, f"{kind.__name__} listens at {found.url} and speaks in lane {found.lane}. Ctrl-C ends it.")


agent.add_command(new)
agent.add_command(run)
