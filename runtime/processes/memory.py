"""How much memory this machine, or the container it is, has and how much of it is free; Linux alone says so."""

from __future__ import annotations

from pathlib import Path

from runtime.processes.process import LINUX

CGROUP = Path("/sys/fs/cgroup")
_LIMIT = "memory.max"


def free_bytes() -> int | None:
    """What can be taken now, caches included that are given back for it; None where the system does not say."""
    if not LINUX:
        return None
    used, total = within_limit(*counted(Path("/proc/meminfo").read_bytes()))
    return total - used


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
