"""What happened between two readings of the machine, as rates and levels. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from agents.resource_monitor.gpu import GpuReading
from agents.resource_monitor.machine import MachineReading, ProcessReading


@dataclass(frozen=True, slots=True)
class SwarmProcess:
    """One process of ours: what it is for, whose session it serves, what it uses."""

    purpose: str
    session: str
    process: ProcessReading


@dataclass(frozen=True, slots=True)
class Sample:
    """One moment; percentages are of the whole machine."""

    uptime: float
    seconds: float
    cpu_percent: float
    cpu_percent_of_others: float
    memory_bytes: int
    memory_total_bytes: int
    disk_free_bytes: int
    received_per_s: float
    sent_per_s: float
    members: tuple[SwarmProcess, ...]
    gpus: tuple[GpuReading, ...]

    def telemetry(self, session: str) -> dict[str, Any]:
        """The sample as one session is shown it: the machine, and the session's own processes."""
        return {
            "uptime": self.uptime,
            "cpu_percent": round(self.cpu_percent, 2),
            "memory_bytes": self.memory_bytes,
            "memory_total_bytes": self.memory_total_bytes,
            "disk_free_bytes": self.disk_free_bytes,
            "received_per_s": round(self.received_per_s, 1),
            "sent_per_s": round(self.sent_per_s, 1),
            "children": [
                {"purpose": one.purpose, **asdict(one.process)} for one in self.members if one.session == session
            ],
            "gpus": [asdict(one) for one in self.gpus],
        }


def sample(
    before: MachineReading,
    now: MachineReading,
    was: Sequence[SwarmProcess],
    members: Sequence[SwarmProcess],
    gpus: Sequence[GpuReading] = (),
) -> Sample:
    """What lies between two readings, and the levels of the second."""
    seconds, ticks = now.uptime - before.uptime, now.cpu_total - before.cpu_total
    if ticks > 0:
        busy = (now.cpu_busy - before.cpu_busy) / ticks
    else:
        # Where only a load is known, it is a level and not a counter.
        busy = now.cpu_busy / now.cpu_total if seconds <= 0 and now.cpu_total else 0.0
    ours = _cpu_seconds(was, members)
    return Sample(
        uptime=now.uptime,
        seconds=seconds,
        cpu_percent=100 * min(1.0, max(0.0, busy)),
        cpu_percent_of_others=100 * min(1.0, max(0.0, busy - (ours / ticks if ticks > 0 else 0.0))),
        memory_bytes=now.memory_used,
        memory_total_bytes=now.memory_total,
        disk_free_bytes=now.disk_free,
        received_per_s=max(0, now.received - before.received) / seconds if seconds > 0 else 0.0,
        sent_per_s=max(0, now.sent - before.sent) / seconds if seconds > 0 else 0.0,
        members=tuple(members),
        gpus=tuple(gpus),
    )


def _cpu_seconds(was: Sequence[SwarmProcess], now: Sequence[SwarmProcess]) -> float:
    """CPU seconds that our processes took between two moments; a new one took all it has."""
    before = {one.process.pid: one.process.cpu_seconds for one in was}
    return sum(max(0.0, one.process.cpu_seconds - before.get(one.process.pid, 0.0)) for one in now)
