"""Where commands read sessions: from the running swarm if there is one, else from the home's files or a bundle."""

from __future__ import annotations

import fcntl
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contracts.errors import InvalidInput, SwarmError, Unreachable
from runtime.cli.call import Call

if TYPE_CHECKING:
    from runtime.audit import Verdict
    from runtime.commands.client import Swarm
    from runtime.home.home import Home
    from runtime.log.archive import Archive, StoredSession
    from runtime.replay.audit_subject import AuditSubject
    from runtime.views.summaries import Summaries


HERE = "me"
"""The partition of sessions that no server has seen."""

ENDED = ("completed", "failed", "cancelled")


class HomeFiles:
    """The sessions in the home's files, in the form of `Swarm`; nothing grows while it is read."""

    def __init__(self, call: Call, archive: Summaries) -> None:
        self._call = call
        self._archive = archive

    async def sessions(self) -> list[dict[str, Any]]:
        """Summaries of all sessions."""
        return [self._left(one) for one in self._archive.sessions()]

    async def session(self, session: str) -> dict[str, Any]:
        """The summary of the one that an id, a unique beginning of one, or `last` names."""
        return self._left(self._archive.session(resolve_session(self._call, session, self._archive)))

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
async def reader(call: Call) -> AsyncIterator[Swarm | HomeFiles]:
    """What answers questions about sessions: the swarm, or the files when no host runs and no server was named."""
    if call.up:
        async with call.swarm() as found:
            yield found
    else:
        from runtime.views.summaries import Summaries

        yield HomeFiles(call, Summaries(call.home))


async def find(found: Swarm | HomeFiles, name: str) -> str:
    """The id of the session that an id, a unique beginning of one, or `last` names."""
    return str((await found.session(name))["session"])


def resolve_session(call: Call, name: str, archive: Archive) -> str:
    """The session in the home's files that the name means; `last` is the newest training session."""
    from runtime.log.archive import newest_training

    if name != "last":
        return call.home.find(name, archive.ids())
    return newest_training(archive.begun())


@contextmanager
def open_subject(call: Call, name: str) -> Iterator[AuditSubject]:
    """A session and all bytes that belong to it: of the home, or out of the bundle at an existing path."""
    from tempfile import TemporaryDirectory

    from bus.blobs import DirectoryBlobs
    from runtime.bundle.reader import unpack_bundle
    from runtime.replay.audit_subject import AuditSubject

    if Path(name).is_file():
        with TemporaryDirectory(prefix="swarm-") as folder:
            yield unpack_bundle(Path(name).absolute(), "", Path(folder))
    else:
        home = call.home
        yield AuditSubject(
            read_session(call, name), DirectoryBlobs(home.blobs), home.root / "work" / "audits", home.root
        )


def read_session(call: Call, name: str) -> StoredSession:
    """The session that a name means, in the home's files; the path of an existing file is a bundle."""
    from runtime.log.archive import Archive

    path = Path(name)
    if path.is_file():
        from runtime.bundle.reader import Bundle

        with Bundle(path.absolute()) as open_subject:
            found = open_subject.kept
    else:
        archive = Archive(call.home)
        found = archive.read(resolve_session(call, name, archive))
    if found.voids or found.torn_bytes:
        call.note(f"Not everything in {name} is a fact; see: swarm audit {name}")
    return found


async def send_command(call: Call, name: str, verb: str, **body: Any) -> tuple[str, dict[str, Any]]:
    """Send a command about one session; its id and the answer."""
    async with call.swarm() as found:
        session = await find(found, name)
        return session, await found.command(verb, session=session, **body)


Verification = Callable[[], "tuple[Verdict, AuditSubject | None]"]
"""Verifies the log; gives what can be computed again as well, if that is wanted and there is anything to be read."""

Notes = Sequence[str] | None

BEGINS, ENDS = b"PK\x03\x04", b"PK\x05\x06"
"""The bytes at both ends of every ZIP archive."""
_TAIL = 64


@contextmanager
def audit_source(
    call: Call, name: str, root: str, notes: Notes, *, again: bool
) -> Iterator[tuple[Verification, Mapping[str, Any]]]:
    """The source that was named, and the profile it was probably trained under, so that children can be prepared."""
    if Path(name).is_file():
        _refuse_other_files(Path(name))
        with _bundle_source(Path(name).absolute(), root, notes, again=again) as look:
            yield look, {}
    else:
        yield _home_source(call, name, root, notes, again=again)


def _refuse_other_files(path: Path) -> None:
    """Raise when a file has neither the beginning nor the end of an archive: it was never a bundle."""
    with path.open("rb") as file:
        begins = file.read(len(BEGINS))
        file.seek(0, os.SEEK_END)
        file.seek(max(0, file.tell() - _TAIL))
        ends = file.read()
    if begins != BEGINS and ENDS not in ends:
        raise InvalidInput(
            f"{str(path)!r} is no bundle.", cure="Name a session, or a file that `swarm bundle` wrote.", path="S|BUNDLE"
        )


@contextmanager
def _bundle_source(path: Path, root: str, notes: Notes, *, again: bool) -> Iterator[Verification]:
    from tempfile import TemporaryDirectory

    from runtime import audit as audits
    from runtime.bundle.reader import unpack_bundle

    opened: list[AuditSubject] = []

    def look() -> tuple[Verdict, AuditSubject | None]:
        found = audits.check_bundle(path, root=root, anchors=notes)
        opened.extend([unpack_bundle(path, root, Path(folder))] if again and found.verdict == "pass" else [])
        return found, opened[0] if opened else None

    with TemporaryDirectory(prefix="swarm-audit-") as folder:
        yield look
        for one in opened:
            with suppress(OSError):
                one.work.rmdir()


def _home_source(
    call: Call, name: str, root: str, notes: Notes, *, again: bool
) -> tuple[Verification, Mapping[str, Any]]:
    from bus.blobs import DirectoryBlobs
    from runtime.log.archive import Archive, CachedArchive, likely_machine

    home = call.home
    session = resolve_session(call, name, Archive(home))
    blobs, running = DirectoryBlobs(home.blobs), home.host() is not None and call.up

    def look() -> tuple[Verdict, AuditSubject | None]:
        # Imported only now, so that the children are prepared without waiting for these modules.
        from runtime import audit as audits
        from runtime.replay.audit_subject import AuditSubject

        archive = CachedArchive(home, root)
        at_least = call.wait(_events_in_swarm(call, session)) if running else 0
        found = audits.check_log(archive, session, blobs, at_least=at_least, anchors=notes)
        if found.verdict != "pass" or not again:
            return found, None
        return found, AuditSubject(archive.read(session), blobs, home.root / "work" / "audits", home.root)

    def steady() -> tuple[Verdict, AuditSubject | None]:
        from runtime.audit.log_check import read_steadily

        return read_steadily(look) if running else look()

    return steady, likely_machine(home.log(session))


async def _events_in_swarm(call: Call, session: str) -> int:
    """How many events the running swarm says there are; 0 when it cannot say."""
    try:
        async with reader(call) as found:
            return int((await found.session(session))["events"])
    except SwarmError as error:
        call.note(f"The swarm was not asked how long the session is: {error.message}")
        return 0
