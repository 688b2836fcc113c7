"""What `swarm audit` looks at: a session of the home, or a bundle, verified once and read once."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contracts.errors import InvalidInput, SwarmError
from runtime.cli.call import Call
from runtime.cli.reach import chosen, reader

if TYPE_CHECKING:
    from runtime.audit import Verdict
    from runtime.replay.material import AuditSubject

Look = Callable[[], "tuple[Verdict, AuditSubject | None]"]
"""Verifies the log; gives what can be computed again as well, if that is wanted and there is anything to be read."""

Notes = Sequence[str] | None

BEGINS, ENDS = b"PK\x03\x04", b"PK\x05\x06"
"""The bytes at both ends of every ZIP archive."""
_TAIL = 64


@contextmanager
def looking(call: Call, name: str, root: str, notes: Notes, *, again: bool) -> Iterator[tuple[Look, Mapping[str, Any]]]:
    """The source that was named, and the profile it was probably trained under, so that children can be prepared."""
    if Path(name).is_file():
        _refuse_other_files(Path(name))
        with _at_bundle(Path(name).absolute(), root, notes, again=again) as look:
            yield look, {}
    else:
        yield _at_home(call, name, root, notes, again=again)


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
def _at_bundle(path: Path, root: str, notes: Notes, *, again: bool) -> Iterator[Look]:
    from tempfile import TemporaryDirectory

    from runtime import audit as audits
    from runtime.bundle.unpacked import unpacked

    opened: list[AuditSubject] = []

    def look() -> tuple[Verdict, AuditSubject | None]:
        found = audits.bundle(path, root=root, anchors=notes)
        opened.extend([unpacked(path, root, Path(folder))] if again and found.verdict == "pass" else [])
        return found, opened[0] if opened else None

    with TemporaryDirectory(prefix="swarm-audit-") as folder:
        yield look
        for one in opened:
            with suppress(OSError):
                one.work.rmdir()


def _at_home(call: Call, name: str, root: str, notes: Notes, *, again: bool) -> tuple[Look, Mapping[str, Any]]:
    from bus.blobs import DirectoryBlobs
    from runtime.log.archive import Archive, CachedArchive, likely_machine

    home = call.home
    session = chosen(call, name, Archive(home))
    blobs, running = DirectoryBlobs(home.blobs), home.host() is not None and call.up

    def look() -> tuple[Verdict, AuditSubject | None]:
        # Imported only now, so that the children are prepared without waiting for these modules.
        from runtime import audit as audits
        from runtime.replay.material import AuditSubject

        archive = CachedArchive(home, root)
        at_least = call.wait(_held(call, session)) if running else 0
        found = audits.log(archive, session, blobs, at_least=at_least, anchors=notes)
        if found.verdict != "pass" or not again:
            return found, None
        return found, AuditSubject(archive.read(session), blobs, home.root / "work" / "audits", home.root)

    def steady() -> tuple[Verdict, AuditSubject | None]:
        from runtime.audit.running import steadily

        return steadily(look) if running else look()

    return steady, likely_machine(home.log(session))


async def _held(call: Call, session: str) -> int:
    """How many events the running swarm says there are; 0 when it cannot say."""
    try:
        async with reader(call) as found:
            return int((await found.session(session))["events"])
    except SwarmError as error:
        call.note(f"The swarm was not asked how long the session is: {error.message}")
        return 0
