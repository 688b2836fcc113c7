"""What it takes to have something on disk for good, and to say clearly that there is no room for it."""

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from contracts.errors import NO_ROOM, Full


def sync_directory(path: Path) -> None:
    """Return when the names in a directory will survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file(path: Path) -> None:
    """Return when the bytes of a file will survive a power cut, also those that another process wrote."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_directory(path: Path, mode: int = 0o700) -> None:
    """Create a directory and its parents so that they survive a power cut; it may exist already.

    What is created has exactly this mode; the umask of the process does not count.
    """
    if path.is_dir():
        return
    make_directory(path.parent, mode)
    with suppress(FileExistsError):
        path.mkdir(mode=0o700)
        path.chmod(mode)
    sync_directory(path.parent)


def mode_of(folder: Path, otherwise: int = 0o700) -> int:
    """Who may do what in a folder; what is made in a shared one is made for the same people."""
    return stat.S_IMODE(folder.stat().st_mode) if folder.is_dir() else otherwise


def write_file(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Write a file so that its name holds either all of this content or what it held before, also after a crash."""
    with fresh_name(path) as fresh:
        _write(fresh, content, mode)
        fresh.replace(path)
    sync_directory(path.parent)


def write_once(path: Path, content: bytes, mode: int = 0o600) -> None:
    """As `write_file`, and `FileExistsError` when the name is taken: of two that race, one wins and neither is lost."""
    with fresh_name(path) as fresh:
        _write(fresh, content, mode)
        # A hard link fails when the name is taken, where a rename would silently replace another's file.
        os.link(fresh, path)
    sync_directory(path.parent)


@contextmanager
def fresh_name(path: Path) -> Iterator[Path]:
    """A name of one's own beside the final one; nothing is left under it, however this ends."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(8)}")
    try:
        yield fresh
    finally:
        fresh.unlink(missing_ok=True)


def _write(fresh: Path, content: bytes, mode: int) -> None:
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        os.fchmod(descriptor, mode)
        write_all(descriptor, content)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_all(descriptor: int, data: bytes) -> None:
    """Write every byte; the kernel may take fewer at a time, above all on a disk that is nearly full."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


@contextmanager
def room_for(path: Path) -> Iterator[None]:
    """Turn a full disk, a spent quota or a reached file size limit into `Full` with the cure."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise Full(
            f"there is no room to write {path} ({os.strerror(error.errno)}).",
            cure="Free some space or raise the limit, then try again.",
            path=str(path),
        ) from None
