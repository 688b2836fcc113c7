"""Reads what the machine counts: CPU time, memory, disk, network, GPUs, and what processes use. It judges nothing.

All but GPUs comes from /proc and statvfs, in well under a millisecond. Elsewhere than on Linux less can be known.
NVIDIA GPUs are read through NVML when there are any; where there are none, nothing is loaded and nothing is said.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bus import process_facts
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
        total = os.sysconf("SC_PHYS_PAGES") * process_facts.PAGE_BYTES
        return MachineReading(0.0, min(load, cores), float(cores), 0, total, _free(self._folder), 0, 0)


def processes(pids: Iterable[int]) -> list[ProcessReading]:
    """What these processes use; those that have ended are left out."""
    readings = []
    for pid in pids:
        with suppress(OSError, ValueError, IndexError):
            facts = process_facts.read(pid)
            if facts is not None:
                readings.append(
                    ProcessReading(pid, facts.own_ticks / process_facts.TICKS_PER_SECOND, facts.memory_bytes)
                )
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


def _free(folder: Path) -> int:
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize


@dataclass(frozen=True, slots=True)
class GpuReading:
    """One GPU at one moment; what a device does not tell is None."""

    index: int
    name: str
    percent: float | None
    memory_bytes: int
    memory_total_bytes: int
    celsius: float | None
    watts: float | None

    @property
    def knows_memory(self) -> bool:
        """Whether the device tells how full it is; else both figures are 0."""
        return self.memory_total_bytes > 0


class Gpus:
    """The GPUs of this machine, found once."""

    def __init__(self, nvml: Any) -> None:
        self._nvml = nvml
        self._devices: list[tuple[int, str, Any]] = []
        for index in range(nvml.nvmlDeviceGetCount()):
            device = nvml.nvmlDeviceGetHandleByIndex(index)
            name = nvml.nvmlDeviceGetName(device)
            self._devices.append((index, name.decode() if isinstance(name, bytes) else str(name), device))

    def __len__(self) -> int:
        return len(self._devices)

    def read(self) -> list[GpuReading]:
        """A reading of every GPU: load, memory, power and temperature as far as the driver tells them."""
        readings, nvml = [], self._nvml
        for index, name, device in self._devices:
            use = self._ask(nvml.nvmlDeviceGetUtilizationRates, device)
            memory = self._ask(nvml.nvmlDeviceGetMemoryInfo, device)
            heat = self._ask(nvml.nvmlDeviceGetTemperature, device, nvml.NVML_TEMPERATURE_GPU)
            power = self._ask(nvml.nvmlDeviceGetPowerUsage, device)
            reading = GpuReading(
                index,
                name,
                None if use is None else float(use.gpu),
                0 if memory is None else int(memory.used),
                0 if memory is None else int(memory.total),
                None if heat is None else float(heat),
                None if power is None else power / 1000,
            )
            readings.append(reading)
        return readings

    def close(self) -> None:
        """Shut the driver down; no reading may follow."""
        self._ask(self._nvml.nvmlShutdown)

    def _ask(self, query: Callable[..., Any], *args: Any) -> Any:
        try:
            return query(*args)
        except self._nvml.NVMLError:
            # Not every device tells everything.
            return None


def find_gpus() -> Gpus | None:
    """The GPUs, or None where there is no driver, no library or no device."""
    try:
        nvml = importlib.import_module("pynvml")
    except ImportError:
        return None
    try:
        nvml.nvmlInit()
        gpus = Gpus(nvml)
    except nvml.NVMLError:
        return None
    return gpus if len(gpus) else None
