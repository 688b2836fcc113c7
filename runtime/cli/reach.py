"""How commands reach sessions: through the running swarm when there is one, else from the files of the home."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from contracts.errors import NotFound, Unreachable
from runtime.cli.call import Call

if TYPE_CHECKING:
    from runtime.archive import Archive
    from runtime.client import Swarm

ENDED = ("completed", "failed", "cancelled")


class Files:
    """The sessions in the home's files, in the form of `runtime.client.Swarm`; nothing grows while it is read."""

    def __init__(self, archive: Archive, home: str) -> None:
        self._archive = archive
        self._home = home

    async def sessions(self) -> list[dict[str, Any]]:
        """Summaries of all sessions."""
        return self._archive.sessions()

    async def session(self, session: str) -> dict[str, Any]:
        """The summary of one."""
        return self._archive.session(session)

    async def events(self, session: str, *, after: int = 0, follow: bool = False) -> AsyncIterator[dict[str, Any]]:
        """Its event lines; following one that has not ended needs a swarm."""
        for line in self._archive.events(session, after):
            yield line
        if follow:
            await self.wait(session)

    async def wait(self, session: str, within: float | None = None) -> dict[str, Any]:
        """The summary of a session that has ended; the others stand still without a swarm."""
        seen = self._archive.session(session)
        if seen["state"] not in ENDED:
            raise Unreachable(
                f"session {session} has not ended, and no swarm runs in {self._home!r}.", cure="Start it: swarm up -d"
            )
        return seen


@asynccontextmanager
async def swarm(call: Call) -> AsyncIterator[Swarm]:
    """The running swarm; `Unreachable` when there is none."""
    if not up(call):
        raise Unreachable(f"no swarm runs in {str(call.home.root)!r}.", cure="Start it: swarm up -d")
    from runtime.client import Swarm

    async with Swarm.connect(call.settings) as found:
        yield found


@asynccontextmanager
async def reader(call: Call) -> AsyncIterator[Swarm | Files]:
    """Whoever knows the sessions: the swarm, or the files when no host runs here and no server was named."""
    if up(call):
        async with swarm(call) as found:
            yield found
    else:
        from runtime.archive import Archive

        yield Files(Archive(call.home), str(call.home.root))


def up(call: Call) -> bool:
    """Whether there is a swarm to ask: a server was named, or the home's host lives."""
    host = None if call.settings.url else call.home.host()
    return bool(call.settings.url) or (host is not None and host.alive)


async def find(call: Call, found: Swarm | Files, name: str) -> str:
    """The id of the session that an id, a unique beginning of one, or `last` names."""
    return chosen(call, name, await found.sessions())


def chosen(call: Call, name: str, sessions: Iterable[Mapping[str, Any]]) -> str:
    """The one session among these that the name means."""
    known = list(sessions)
    if name != "last":
        return call.home.find(name, [one["session"] for one in known])
    trained = [one for one in known if one["kind"] == "training"]
    if not trained:
        raise NotFound("there is no training session yet.", cure="Start one: swarm run REQUEST")
    return str(max(trained, key=lambda one: (one["requested_at"], one["session"]))["session"])


async def asked(call: Call, name: str, verb: str, **body: Any) -> tuple[str, dict[str, Any]]:
    """Send a command about one session; its id and the answer."""
    async with swarm(call) as found:
        session = await find(call, found, name)
        return session, await found.command(verb, session=session, **body)
