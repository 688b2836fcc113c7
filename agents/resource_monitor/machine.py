"""Reads what the machine counts: CPU time, memory, disk, network, and what processes use. It judges nothing.

Everything comes from /proc, /sys and statvfs, in well under a millisecond. Elsewhere than on Linux less can be known.
GPUs are read by `gpus`.
"""

import os
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bus import process_facts
from runtime.jobs import resources as memory_of

LINUX = sys.platform == "linux"
_NO_DEVICES = ("lo", "docker", "veth", "br-", "virbr", "ifb")
_NO_DISKS = ("loop", "ram", "zram", "dm-", "md")
"""Block devices that keep nothing by themselves: what is read of them is read of a disk as well, or of memory."""
SECTOR_BYTES = 512
"""The unit of /proc/diskstats, whatever the disk's own sectors are."""


@dataclass(frozen=True, slots=True)
class ProcessReading:
    """What one process has used so far, and holds now."""

    pid: int
    cpu_seconds: float
    memory_bytes: int
    read_bytes: int = 0
    written_bytes: int = 0
    threads: int = 1


@dataclass(frozen=True, slots=True)
class MachineReading:
    """Counters since boot, and levels now; CPU times are seconds, summed over all processors.

    `stalled` are the seconds in which some process waited for a disk; None where the kernel does not count them.
    `link` is what the network can carry, in bytes per second and direction; 0 where no device tells.
    """

    uptime: float
    cpu_busy: float
    cpu_total: float
    memory_used: int
    memory_total: int
    disk_free: int
    received: int
    sent: int
    disk_total: int = 0
    disk_read: int = 0
    disk_written: int = 0
    stalled: float | None = None
    link: float = 0.0


class MachineReader:
    """This machine, as seen from one folder whose disk counts; `link` is what the network carries, where told."""

    def __init__(self, folder: Path, link: float = 0.0) -> None:
        self._folder = folder
        self._read: Callable[[], MachineReading] = self._linux if LINUX else self._elsewhere
        self._disks = frozenset(_names(Path("/sys/block"), _NO_DISKS)) if LINUX else frozenset()
        self._link = link or (_link(Path("/sys/class/net")) if LINUX else 0.0)

    def read(self) -> MachineReading:
        """The counters and levels of this moment."""
        return self._read()

    def _linux(self) -> MachineReading:
        busy, total = _cpu(Path("/proc/stat").read_bytes())
        used, memory = memory_of.counted(Path("/proc/meminfo").read_bytes())
        received, sent = _network(Path("/proc/net/dev").read_text(encoding="ascii", errors="replace"))
        uptime = float(Path("/proc/uptime").read_bytes().split()[0])
        used, memory = memory_of.within_limit(used, memory)
        free, size = _space(self._folder)
        moved = _disks(_text("/proc/diskstats"), self._disks)
        stalled = _stalled(_text("/proc/pressure/io"))
        return MachineReading(
            uptime, busy, total, used, memory, free, received, sent, size, *moved, stalled, self._link
        )

    def _elsewhere(self) -> MachineReading:
        """The load average stands in for the CPU's use; the memory of other processes is unknown."""
        load, cores = os.getloadavg()[0], os.cpu_count() or 1
        total = os.sysconf("SC_PHYS_PAGES") * process_facts.PAGE_BYTES
        free, size = _space(self._folder)
        return MachineReading(0.0, min(load, cores), float(cores), 0, total, free, 0, 0, size)


def processes(pids: Iterable[int]) -> list[ProcessReading]:
    """What these processes use; those that have ended are left out."""
    readings = []
    for pid in pids:
        with suppress(OSError, ValueError, IndexError):
            facts = process_facts.read(pid)
            if facts is not None:
                seconds = facts.own_ticks / process_facts.TICKS_PER_SECOND
                moved = _moved(_text(f"/proc/{pid}/io"))
                readings.append(ProcessReading(pid, seconds, facts.memory_bytes, *moved, facts.threads))
    return readings


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
    return (sum(ticks) - idle) / process_facts.TICKS_PER_SECOND, sum(ticks) / process_facts.TICKS_PER_SECOND


def _network(text: str) -> tuple[int, int]:
    received = sent = 0
    for line in text.splitlines()[2:]:
        name, _, figures = line.partition(":")
        if not name.strip().startswith(_NO_DEVICES):
            columns = figures.split()
            received, sent = received + int(columns[0]), sent + int(columns[8])
    return received, sent


def _disks(text: str, names: frozenset[str]) -> tuple[int, int]:
    """Bytes read from and written to these disks, of the lines of /proc/diskstats."""
    read = written = 0
    for line in text.splitlines():
        columns = line.split()
        if len(columns) > 9 and columns[2] in names:
            read, written = read + int(columns[5]), written + int(columns[9])
    return read * SECTOR_BYTES, written * SECTOR_BYTES


def _moved(text: str) -> tuple[int, int]:
    """Bytes that a process has read from disks and written to them, of its /proc/PID/io; 0 where it may not be read."""
    figures = dict(line.split(": ", 1) for line in text.splitlines() if ": " in line)
    return int(figures.get("read_bytes", 0)), int(figures.get("write_bytes", 0))


def _stalled(text: str) -> float | None:
    """Seconds in which some process waited for a disk, of the first line of /proc/pressure/io."""
    _, found, total = text.partition("\n")[0].partition("total=")
    return int(total) / 1e6 if found else None


def _link(folder: Path) -> float:
    """Bytes per second that all network devices together carry in one direction; 0 where none tells its speed."""
    bits = 0
    for name in _names(folder, _NO_DEVICES):
        with suppress(OSError, ValueError):
            bits += max(0, int((folder / name / "speed").read_bytes()))
    return bits * 1e6 / 8


def _names(folder: Path, without: tuple[str, ...]) -> list[str]:
    try:
        return [path.name for path in folder.iterdir() if not path.name.startswith(without)]
    except OSError:
        return []


def _text(path: str) -> str:
    """What a file of the kernel says; nothing where it is missing, or not ours to read."""
    try:
        return Path(path).read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""


def _space(folder: Path) -> tuple[int, int]:
    """Bytes free to us and in all on the disk of a folder."""
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize
