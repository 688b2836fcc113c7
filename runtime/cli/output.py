"""Where a command is to write a file: judged before any work is done for it."""

from __future__ import annotations

import os
from pathlib import Path

from contracts.errors import InvalidInput, NotFound, Refused


def place(name: str | Path, *, force: bool = True) -> Path:
    """The absolute path, if a file can be written there; without `force` none may be there yet."""
    path = Path(name).absolute()
    if path.is_dir():
        raise InvalidInput(f"{str(path)!r} is a folder.", cure="Name a file in it.", path=str(path))
    if path.exists() and not force:
        cure = "Overwrite it with --force, or choose another with -o."
        raise Refused(f"{str(path)!r} exists.", cure=cure, path=str(path))
    if not path.parent.is_dir():
        raise NotFound(f"there is no folder {str(path.parent)!r}.", cure="Make it first.", path=str(path))
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise Refused(f"{str(path)!r} cannot be written.", cure="Choose a folder of yours with -o.", path=str(path))
    return path
