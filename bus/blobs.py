"""Content-addressed blobs in a directory. Synchronous, so that jobs in children use it too.

A blob's name is the BLAKE3 of its bytes in lower-case hex; what arrives under a name is checked against it.
"""

import errno
import os
import re
import secrets
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from blake3 import blake3

from bus.disk import (
    fresh_name,
    make_directory,
    mode_of,
    room_for,
    sync_directory,
    sync_file,
    write_all,
    write_once,
)
from contracts.errors import InvalidInput, NotFound, NotVerified

_DIGEST = re.compile(r"[0-9a-f]{64}")
_READ_ONLY = 0o444
"""Of these, who may read the store may read a blob."""


def digest_of(content: bytes | Path) -> str:
    """The BLAKE3 of the bytes, or of a file's."""
    if isinstance(content, Path):
        return blake3().update_mmap(content).hexdigest()
    return blake3(content).hexdigest()


class DirectoryBlobs:
    """Blobs as read-only files in two levels of directories; any number of processes may share one root.

    `before_rename` is called when a new blob's bytes are on disk and do not have their name yet: tests crash there.
    """

    def __init__(self, root: Path, *, before_rename: Callable[[], None] | None = None) -> None:
        self.root = root
        self._before_rename = before_rename

    def identity(self) -> str:
        """What this store is called: the same word for everybody who reads and writes this very store."""
        place = self.root / "store"
        if not place.exists():
            with suppress(FileExistsError):
                write_once(place, secrets.token_hex(8).encode(), mode_of(self.root) & 0o666)
        return place.read_text()

    def put(self, content: bytes | Path, *, move: bool = False) -> str:
        """Keep the bytes, or those of a file; returns their digest once they are durable. `Full` without room.

        With `move` the file itself is taken, its writer done with it.
        A sound copy that is there already is left alone, a damaged one is replaced.
        """
        digest = digest_of(content)
        place = self.path(digest)
        if not self._sound(digest):
            with room_for(place):
                self._store(content, digest, link=move)
        if move and isinstance(content, Path):
            content.unlink()
        return digest

    def get(self, digest: str) -> bytes:
        """The bytes under this digest, verified; `NotFound`, or `NotVerified` when they are not what they should be."""
        try:
            content = self.path(digest).read_bytes()
        except FileNotFoundError:
            raise self._missing(digest) from None
        _compare(digest, digest_of(content), self.path(digest))
        return content

    def has(self, digest: str) -> bool:
        """Whether something is kept under this digest; `get` says whether it is sound."""
        return self.path(digest).is_file()

    def check(self, digest: str) -> Path:
        """The file of this blob after reading it through once: like `get`, without holding it in memory."""
        place = self.path(digest)
        if not place.is_file():
            raise self._missing(digest)
        _compare(digest, digest_of(place), place)
        return place

    def path(self, digest: str) -> Path:
        """Where the blob is or would be; neither that it is there nor that it is sound."""
        if not _DIGEST.fullmatch(digest):
            raise InvalidInput(f"{digest!r} is no BLAKE3 digest.", cure="Give its 64 lower-case hex digits.")
        return self.root / digest[:2] / digest[2:4] / digest

    def remove(self, digest: str) -> bool:
        """Forget the blob; whether there was one."""
        try:
            self.path(digest).unlink()
        except FileNotFoundError:
            return False
        return True

    def _store(self, content: bytes | Path, digest: str, *, link: bool) -> None:
        place = self.path(digest)
        mode = mode_of(self.root)
        make_directory(place.parent, mode)
        with fresh_name(place) as fresh:
            if isinstance(content, bytes):
                descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                try:
                    write_all(descriptor, content)
                finally:
                    os.close(descriptor)
            elif not (link and _linked(content, fresh)):
                shutil.copyfile(content, fresh)
            if isinstance(content, Path) and digest_of(fresh) != digest:
                raise NotVerified(f"{content} changed while it was stored.", cure="Finish writing it first.")
            fresh.chmod(mode & _READ_ONLY)
            sync_file(fresh)
            if self._before_rename:
                self._before_rename()
            fresh.replace(place)
            sync_directory(place.parent)

    def _sound(self, digest: str) -> bool:
        place = self.path(digest)
        return place.is_file() and digest_of(place) == digest

    def _missing(self, digest: str) -> NotFound:
        return NotFound(f"there is no blob {digest} in {self.root}.", cure="Copy it from a store that has it.")


def _linked(content: Path, fresh: Path) -> bool:
    """A second name for the file costs nothing, but other devices and some file systems have none to give."""
    try:
        os.link(content, fresh)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP):
            raise
        return False
    return True


def _compare(wanted: str, digest: str, place: Path) -> None:
    if digest != wanted:
        raise NotVerified(
            f"blob {wanted} is damaged: its bytes are those of {digest}.",
            cure="Restore it from another store, or use another checkpoint.",
            path=str(place),
        )
