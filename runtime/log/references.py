"""Which sessions keep a blob, as marks beside the blobs: sealed sessions need theirs long after they left memory."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from bus.disk import make_directory, mode_of, room_for, sync_directory

FOLDER = "kept"


def hold(root: Path, blob: str, session: str) -> None:
    """Mark that a session keeps a blob; durable when it returns."""
    marks = root / FOLDER / blob
    with room_for(marks):
        while not (marks / session).exists():
            # The last holder may be taking the folder away at this very moment.
            with suppress(FileNotFoundError):
                make_directory(marks, mode_of(root))
                (marks / session).touch()
    # Another process may have made the folder and not yet brought it to disk.
    for folder in (marks, marks.parent, root):
        sync_directory(folder)


def release(root: Path, blob: str, session: str) -> None:
    """Take the mark away; there may be none."""
    marks = root / FOLDER / blob
    (marks / session).unlink(missing_ok=True)
    with suppress(OSError):
        marks.rmdir()


def holders(root: Path, blob: str) -> list[str]:
    """The sessions that keep a blob."""
    marks = root / FOLDER / blob
    return sorted(mark.name for mark in marks.iterdir()) if marks.is_dir() else []
