"""Where sessions are read: from the running swarm if there is one, else from the home's files or a bundle."""

from __future__ import annotations

import fcntl
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from contracts.errors import InvalidInput, SwarmError, Unreachable
from runtime.api.home_context import HomeContext

if TYPE_CHECKING:
    from contracts.replies import EventReply, SessionReply
    from runtime.api.swarm import Swarm
    from runtime.audit import Verdict
    from runtime.home.home import Home
    from runtime.log.archive import Archive, StoredSession
    from runtime.replay.audit_subject import AuditSubject
    from runtime.views.summaries import Summaries

T = TypeVar("T")

HERE = "me"
"""The partition of sessions that no server has seen."""

ENDED = ("completed", "failed", "cancelled")


class HomeFiles:
    """The sessions in the home's files, in the form of `Swarm`; nothing grows while it is read."""

    def __init__(self, context: HomeContext, archive: Summaries) -> None:
        self._context = context
        self._archive = archive

    async def sessions(self) -> list[SessionReply]:
        """Summaries of all sessions."""
        return [self._with_waits(summary) for summary in self._archive.sessions()]

    async def session(self, session: str) -> SessionReply:
        """The summary of the one that an id, a unique beginning of one, or `last` names."""
        return self._with_waits(self._archive.session(resolve_session(self._context, session, self._archive)))

    def _with_waits(self, summary: SessionReply) -> SessionReply:
        """The summary, with a note how it goes on when no swarm is up and it is not trained with --here."""
        if summary["state"] in ENDED:
            return summary
        here = summary["session"].startswith(f"{HERE}-")
        if here and trained_here(self._context.home):
            return summary
        go_on = f"swarm resume {summary['session']} --here" if here else "swarm up -d"
        return {**summary, "waits": f"for a swarm: nobody has it now, and it goes on with: {go_on}"}

    async def events(self, session: str, *, after: int = 0, follow: bool = False) -> AsyncIterator[EventReply]:
        """Its event lines; following one that has not ended needs a swarm."""
        for line in self._archive.events(session, after):
            yield line
        if follow:
            await self.wait(session)

    async def wait(self, session: str, within: float | None = None) -> SessionReply:
        """The summary of an ended session; `Unreachable` for any other, since no swarm runs that could end it."""
        summary = self._archive.session(session)
        if summary["state"] not in ENDED:
            where = str(self._context.home.root)
            message = f"session {session} has not ended, and no swarm runs in {where!r}."
            raise Unreachable(message, cure="Start it: swarm up -d")
        return summary


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
async def reader(context: HomeContext) -> AsyncIterator[Swarm | HomeFiles]:
    """What answers questions about sessions: the swarm, or the files when no host runs and no server was named."""
    if context.up:
        async with context.swarm() as swarm:
            yield swarm
    else:
        from runtime.views.summaries import Summaries

        yield HomeFiles(context, Summaries(context.home))


def ask_reader(context: HomeContext, question: Callable[[Swarm | HomeFiles], Awaitable[T]]) -> T:
    """The answer of the swarm or the files to one question about sessions."""

    async def answer() -> T:
        async with reader(context) as source:
            return await question(source)

    return context.wait(answer())


async def find(source: Swarm | HomeFiles, name: str) -> str:
    """The id of the session that an id, a unique beginning of one, or `last` names."""
    return str((await source.session(name))["session"])


def resolve_session(context: HomeContext, name: str, archive: Archive) -> str:
    """The id of the session in the home's files that the name means; `last` is the newest training session."""
    from runtime.log.archive import resolve_name

    return resolve_name(name, context.home, archive.ids(), archive.begun)


def read_stored(context: HomeContext, name: str) -> StoredSession:
    """The session that a name means, from the home's files."""
    from runtime.log.archive import Archive

    archive = Archive(context.home)
    return archive.read(resolve_session(context, name, archive))


def read_session(context: HomeContext, name: str) -> StoredSession:
    """As `read_stored`; the path of an existing file is a bundle. It is told when something in it is no fact."""
    if Path(name).is_file():
        from runtime.bundle.reader import Bundle

        with Bundle(Path(name).absolute()) as bundle:
            stored = bundle.kept
    else:
        stored = read_stored(context, name)
    if stored.voids or stored.torn_bytes:
        context.note(f"Not everything in {name} is a fact; see: swarm audit {name}")
    return stored


@contextmanager
def open_subject(context: HomeContext, name: str) -> Iterator[AuditSubject]:
    """A session and all bytes that belong to it: of the home, or out of the bundle at an existing path."""
    from tempfile import TemporaryDirectory

    from bus.blobs import DirectoryBlobs
    from runtime.bundle.reader import unpack_bundle
    from runtime.replay.audit_subject import AuditSubject

    if Path(name).is_file():
        with TemporaryDirectory(prefix="swarm-") as folder:
            yield unpack_bundle(Path(name).absolute(), "", Path(folder))
    else:
        home = context.home
        stored = read_session(context, name)
        yield AuditSubject(stored, DirectoryBlobs(home.blobs), home.root / "work" / "audits", home.root)


Verification = Callable[[], "tuple[Verdict, AuditSubject | None]"]
"""Verifies the log; gives what can be computed again as well, if that is wanted and there is anything to be read."""

Notes = Sequence[str] | None

BEGINS, ENDS = b"PK\x03\x04", b"PK\x05\x06"
"""The bytes at both ends of every ZIP archive."""
_TAIL = 64


def is_bundle(name: str) -> bool:
    """Whether the name is the path of a file that is a ZIP archive, as bundles are."""
    try:
        with Path(name).open("rb") as file:
            return file.read(len(BEGINS)) == BEGINS
    except (OSError, ValueError):
        return False


@contextmanager
def audit_source(
    context: HomeContext, name: str, root: str, notes: Notes, *, again: bool
) -> Iterator[tuple[Verification, Mapping[str, Any]]]:
    """What `swarm audit` verifies once and reads once: a session of the home, or the bundle at an existing path.

    Gives with it the profile that the session was probably trained under, so that children can be prepared. `again`
    says that spans are to be computed again.
    """
    if Path(name).is_file():
        with _bundle_source(Path(name), root, notes, again=again) as verify:
            yield verify, {}
    else:
        yield _home_source(context, name, root, notes, again=again)


@contextmanager
def _bundle_source(path: Path, root: str, notes: Notes, *, again: bool) -> Iterator[Verification]:
    with path.open("rb") as file:
        begins = file.read(len(BEGINS))
        file.seek(0, os.SEEK_END)
        file.seek(max(0, file.tell() - _TAIL))
        if begins != BEGINS and ENDS not in file.read():
            cure = "Name a session, or a file that `swarm bundle` wrote."
            raise InvalidInput(f"{str(path)!r} is no bundle.", cure=cure, path="S|BUNDLE")
    from tempfile import TemporaryDirectory

    from runtime import audit as audits
    from runtime.bundle.reader import unpack_bundle

    path = path.absolute()
    subjects: list[AuditSubject] = []

    def verify() -> tuple[Verdict, AuditSubject | None]:
        verdict = audits.check_bundle(path, root=root, anchors=notes)
        subjects.extend([unpack_bundle(path, root, Path(folder))] if again and verdict.verdict == "pass" else [])
        return verdict, subjects[0] if subjects else None

    with TemporaryDirectory(prefix="swarm-audit-") as folder:
        yield verify
        for subject in subjects:
            with suppress(OSError):
                subject.work.rmdir()


def _home_source(
    context: HomeContext, name: str, root: str, notes: Notes, *, again: bool
) -> tuple[Verification, Mapping[str, Any]]:
    from bus.blobs import DirectoryBlobs
    from runtime.log.archive import Archive, CachedArchive, likely_machine

    home = context.home
    session = resolve_session(context, name, Archive(home))
    blobs, running = DirectoryBlobs(home.blobs), home.host() is not None and context.up

    def verify() -> tuple[Verdict, AuditSubject | None]:
        # Imported only now, so that the children are prepared without waiting for these modules.
        from runtime import audit as audits
        from runtime.replay.audit_subject import AuditSubject

        archive = CachedArchive(home, root)
        at_least = 0
        if running:
            try:
                at_least = int(ask_reader(context, lambda source: source.session(session))["events"])
            except SwarmError as error:
                context.note(f"The swarm was not asked how long the session is: {error.message}")
        verdict = audits.check_log(archive, session, blobs, at_least=at_least, anchors=notes)
        if verdict.verdict != "pass" or not again:
            return verdict, None
        return verdict, AuditSubject(archive.read(session), blobs, home.root / "work" / "audits", home.root)

    def verify_steadily() -> tuple[Verdict, AuditSubject | None]:
        from runtime.audit.log_check import read_steadily

        return read_steadily(verify) if running else verify()

    return verify_steadily, likely_machine(home.log(session))
