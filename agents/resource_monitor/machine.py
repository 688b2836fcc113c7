"""Reads what the machine counts: CPU time, memory, disk, network, and what single processes use. It judges nothing.

Everything comes from /proc and statvfs, in well under a millisecond. Elsewhere than on Linux less can be known.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bus import process_facts
from bus.process_facts import PAGE_BYTES, TICKS_PER_SECOND
from runtime.jobs import resources as memory_of

LINUX = sys.platform == "linux"
_NO_DEVICES = ("lo", "docker", "veth", "br-", "virbr")


@dataclass(frozen=True, slots=True)
class ProcessReading:
    """What one process has used so far, and holds now."""

    pid: int
    cpu_seconds: float
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class MachineReading:
    """Counters since boot, and levels now; CPU times are seconds, summed over all processors."""

    uptime: float
    cpu_busy: float
    cpu_total: float
    memory_used: int
    memory_total: int
    disk_free: int
    received: int
    sent: int


class MachineReader:
    """This machine, as seen from one folder whose disk counts."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: Callable[[], MachineReading] = self._linux if LINUX else self._elsewhere

    def read(self) -> MachineReading:
        """The counters and levels of this moment."""
        return self._read()

    def _linux(self) -> MachineReading:
        busy, total = _cpu(Path("/proc/stat").read_bytes())
        used, memory = memory_of.counted(Path("/proc/meminfo").read_bytes())
        received, sent = _network(Path("/proc/net/dev").read_text(encoding="ascii", errors="replace"))
        uptime = float(Path("/proc/uptime").read_bytes().split()[0])
        used, memory = memory_of.within_limit(used, memory)
        return MachineReading(uptime, busy, total, used, memory, _free(self._folder), received, sent)

    def _elsewhere(self) -> MachineReading:
        """The load average stands in for the CPU's use; the memory of other processes is unknown."""
        load, cores = os.getloadavg()[0], os.cpu_count() or 1
        total = os.sysconf("SC_PHYS_PAGES") * PAGE_BYTES
        return MachineReading(0.0, min(load, cores), float(cores), 0, total, _free(self._folder), 0, 0)


def processes(pids: Iterable[int]) -> list[ProcessReading]:
    """What these processes use; those that have ended are left out."""
    found = []
    for pid in pids:
        with suppress(OSError, ValueError, IndexError):
            facts = process_facts.read(pid)
            if facts is not None:
                found.append(ProcessReading(pid, facts.own_ticks / TICKS_PER_SECOND, facts.memory_bytes))
    return found


def size_of(folder: Path) -> int:
    """The bytes of all files below a folder; 0 when it is not there."""
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                total += Path(root, name).lstat().st_size
    return total


def _cpu(text: bytes) -> tuple[float, float]:
    # user nice system idle iowait irq softirq steal; guests are counted in user already.
    ticks = [int(word) for word in text[: text.index(b"\n")].split()[1:9]]
    idle = ticks[3] + (ticks[4] if len(ticks) > 4 else 0)
    return (sum(ticks) - idle) / TICKS_PER_SECOND, sum(ticks) / TICKS_PER_SECOND


def _network(text: str) -> tuple[int, int]:
    received = sent = 0
    for line in text.splitlines()[2:]:
        name, _, figures = line.partition(":")
        if not name.strip().startswith(_NO_DEVICES):
            columns = figures.split()
            received, sent = received + int(columns[0]), sent + int(columns[8])
    return received, sent


def _free(folder: Path) -> int:
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize
