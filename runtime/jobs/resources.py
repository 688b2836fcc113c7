"""How much memory and disk this machine, or the container it is, has free; what does not fit is refused beforehand.

Linux alone tells of memory.
"""

import os
import resource
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from contracts.errors import InvalidRequest, Problem
from runtime.jobs.process import LINUX

CGROUP = Path("/sys/fs/cgroup")
_LIMIT = "memory.max"


def free_bytes() -> int | None:
    """What can be taken now, caches included that are given back for it; None where the system does not say."""
    if not LINUX:
        return None
    used, total = within_limit(*counted(Path("/proc/meminfo").read_bytes()))
    return total - used


def total_bytes() -> int | None:
    """All memory of this machine or container; None where the system does not say."""
    return within_limit(*counted(Path("/proc/meminfo").read_bytes()))[1] if LINUX else None


def devices() -> int:
    """How many accelerators this process may use; asks no driver, which would take memory of each."""
    if (named := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return len([one for one in named.split(",") if one.strip() not in ("", "-1")])
    return len(list(Path("/dev").glob("nvidia[0-9]*")))


@contextmanager
def bounded(most: int | None = None, *, free_too: bool = True) -> Iterator[None]:
    """Inside, this process takes no more than is free now, nor than `most` bytes besides what it holds already.

    Where what is `free_too` is not asked, `most` alone counts, so that neighbours do not decide.

    What asks for more hears `MemoryError`. For code whose needs cannot be counted beforehand; without it the kernel
    chooses a process to end. No bound where the system does not say what is free, nor in a process that has other work
    besides, since a limit is the whole process's; no wall either, since code that wants to may raise it again.
    """
    free = free_bytes() if threading.current_thread() is threading.main_thread() else None
    if free is None:
        yield
        return
    room = free if most is None else min(free, most) if free_too else most
    before, highest = resource.getrlimit(resource.RLIMIT_DATA)
    # What counts against the limit already is the writable memory that is private to this process.
    lines = Path("/proc/self/status").read_bytes().splitlines()
    held = next(int(line.split()[1]) for line in lines if line.startswith(b"VmData:")) * 1024
    limits = [limit for limit in (before, highest, held + room) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_DATA, (min(limits), highest))
    try:
        yield
    except MemoryError as error:
        which = "that were free" if room == free else "that it may take"
        error.args = error.args or (f"it wants more than the {room / 2**30:.2f} GiB {which}",)
        raise
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (before, highest))


def killed_for_memory() -> int:
    """How many processes the system has ended so far because memory ran out; 0 where it does not say.

    In a container with a limit of its own these are the container's, else the machine's.
    """
    for place, name in ((CGROUP / "memory.events", b"oom_kill"), (Path("/proc/vmstat"), b"oom_kill")):
        with suppress(OSError, ValueError):
            lines = (line.split() for line in place.read_bytes().splitlines())
            return next((int(count) for key, count in lines if key == name), 0)
    return 0


def counted(text: bytes) -> tuple[int, int]:
    """Bytes used and in all, as /proc/meminfo tells them."""
    figures = dict(line.split(b":", 1) for line in text.splitlines()[:5])
    total = int(figures[b"MemTotal"].split()[0]) * 1024
    free = figures.get(b"MemAvailable") or figures[b"MemFree"]
    return total - int(free.split()[0]) * 1024, total


def within_limit(used: int, total: int) -> tuple[int, int]:
    """In a container with a limit of its own, that limit is the memory there is."""
    try:
        limit = (CGROUP / _LIMIT).read_bytes().strip()
        if limit == b"max" or int(limit) >= total:
            return used, total
        held = int((CGROUP / "memory.current").read_bytes())
        pages = dict(line.split() for line in (CGROUP / "memory.stat").read_bytes().splitlines())
        return max(0, held - int(pages.get(b"inactive_file", 0))), int(limit)
    except (OSError, ValueError):
        return used, total


_UNHEARD_OF = 1 << 100


def refuse_beyond(what: str, place: str, folder: Path, *, disk: int, held: int) -> None:
    """Raise `InvalidRequest`, naming `place` in the request, when so many bytes do not fit on this machine.

    `disk` are those that go to where `folder` lies, `held` those of memory. Called with the sizes that a request or a
    file names: what they name costs nothing to write down.
    """
    room = {"disk": (disk, shutil.disk_usage(folder).free), "memory": (held, free_bytes())}
    for kind, (wanted, free) in room.items():
        if free is not None and wanted > free:
            message = f"{what} would take {gib(wanted)} of {kind}, and {gib(free)} are free"
            raise InvalidRequest([Problem(place, message, f"Ask for less, or free some {kind}.")])


def gib(size: int) -> str:
    """A number of bytes for people; a file may declare numbers of any length, and not every one of them is a float."""
    return f"{min(size, _UNHEARD_OF) / 2**30:.4g} GiB"
