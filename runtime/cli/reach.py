"""How commands reach sessions: through the running swarm when there is one, else from the files of the home."""

from __future__ import annotations

import fcntl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contracts.errors import Unreachable
from runtime.cli.call import Call

if TYPE_CHECKING:
    from runtime.commands.client import Swarm
    from runtime.home.home import Home
    from runtime.log.archive import Archive, StoredSession
    from runtime.replay.material import AuditSubject
    from runtime.views.summaries import Summaries

HERE = "me"
"""The partition of sessions that no server has seen."""

ENDED = ("completed", "failed", "cancelled")


class Files:
    """The sessions in the home's files, in the form of `Swarm`; nothing grows while it is read."""

    def __init__(self, call: Call, archive: Summaries) -> None:
        self._call = call
        self._archive = archive

    async def sessions(self) -> list[dict[str, Any]]:
        """Summaries of all sessions."""
        return [self._left(one) for one in self._archive.sessions()]

    async def session(self, session: str) -> dict[str, Any]:
        """The summary of the one that an id, a unique beginning of one, or `last` names."""
        return self._left(self._archive.session(chosen(self._call, session, self._archive)))

    def _left(self, seen: dict[str, Any]) -> dict[str, Any]:
        """The summary, with a note how it goes on when no swarm is up and it is not trained with --here."""
        if seen["state"] in ENDED:
            return seen
        here = seen["session"].startswith(f"{HERE}-")
        if here and trained_here(self._call.home):
            return seen
        go_on = f"swarm resume {seen['session']} --here" if here else "swarm up -d"
        return seen | {"waits": f"for a swarm: nobody has it now, and it goes on with: {go_on}"}

    async def events(self, session: str, *, after: int = 0, follow: bool = False) -> AsyncIterator[dict[str, Any]]:
        """Its event lines; following one that has not ended needs a swarm."""
        for line in self._archive.events(session, after):
            yield line
        if follow:
            await self.wait(session)

    async def wait(self, session: str, within: float | None = None) -> dict[str, Any]:
        """The summary of an ended session; `Unreachable` for any other, since no swarm runs that could end it."""
        seen = self._archive.session(session)
        if seen["state"] not in ENDED:
            where = str(self._call.home.root)
            message = f"session {session} has not ended, and no swarm runs in {where!r}."
            raise Unreachable(message, cure="Start it: swarm up -d")
        return seen


def trained_here(home: Home) -> bool:
    """Whether a process trains with --here in the home now."""
    try:
        with (home.root / "here.lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


@asynccontextmanager
async def reader(call: Call) -> AsyncIterator[Swarm | Files]:
    """What answers questions about sessions: the swarm, or the files when no host runs and no server was named."""
    if call.up:
        async with call.swarm() as found:
            yield found
    else:
        from runtime.views.summaries import Summaries

        yield Files(call, Summaries(call.home))


async def find(found: Swarm | Files, name: str) -> str:
    """The id of the session that an id, a unique beginning of one, or `last` names."""
    return str((await found.session(name))["session"])


def chosen(call: Call, name: str, archive: Archive) -> str:
    """The session in the home's files that the name means; `last` is the newest training session."""
    from runtime.log.archive import newest_training

    if name != "last":
        return call.home.find(name, archive.ids())
    return newest_training(archive.begun())


@contextmanager
def opened(call: Call, name: str) -> Iterator[AuditSubject]:
    """A session and all bytes that belong to it: of the home, or out of the bundle at an existing path."""
    from tempfile import TemporaryDirectory

    from bus.blobs import DirectoryBlobs
    from runtime.bundle.unpacked import unpacked
    from runtime.replay.material import AuditSubject

    if Path(name).is_file():
        with TemporaryDirectory(prefix="swarm-") as folder:
            yield unpacked(Path(name).absolute(), "", Path(folder))
    else:
        home = call.home
        yield AuditSubject(kept(call, name), DirectoryBlobs(home.blobs), home.root / "work" / "audits", home.root)


def kept(call: Call, name: str) -> StoredSession:
    """The session that a name means, in the home's files; the path of an existing file is a bundle."""
    from runtime.log.archive import Archive

    path = Path(name)
    if path.is_file():
        from runtime.bundle.opened import Bundle

        with Bundle(path.absolute()) as opened:
            found = opened.kept
    else:
        archive = Archive(call.home)
        found = archive.read(chosen(call, name, archive))
    if found.voids or found.torn_bytes:
        call.note(f"Not everything in {name} is a fact; see: swarm audit {name}")
    return found


async def asked(call: Call, name: str, verb: str, **body: Any) -> tuple[str, dict[str, Any]]:
    """Send a command about one session; its id and the answer."""
    async with call.swarm() as found:
        session = await find(found, name)
        return session, await found.command(verb, session=session, **body)
