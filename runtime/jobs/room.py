"""What is wanted of this machine's disk and memory, held against what is free before the first byte is taken."""

from __future__ import annotations

import shutil
from pathlib import Path

from contracts.errors import InvalidRequest, Problem
from runtime.jobs import memory

_UNHEARD_OF = 1 << 100


def refuse_beyond(what: str, place: str, folder: Path, *, disk: int, held: int) -> None:
    """Raise `InvalidRequest`, naming `place` in the request, when so many bytes do not fit on this machine.

    `disk` are those that go to where `folder` lies, `held` those of memory. Called with the sizes that a request or a
    file names: what they name costs nothing to write down.
    """
    room = {"disk": (disk, shutil.disk_usage(folder).free), "memory": (held, memory.free_bytes())}
    for kind, (wanted, free) in room.items():
        if free is not None and wanted > free:
            message = f"{what} would take {gib(wanted)} of {kind}, and {gib(free)} are free"
            raise InvalidRequest([Problem(place, message, f"Ask for less, or free some {kind}.")])


def gib(size: int) -> str:
    """A number of bytes for people; a file may declare numbers of any length, and not every one of them is a float."""
    return f"{min(size, _UNHEARD_OF) / 2**30:.4g} GiB"
