"""What happened between two readings of the machine, and what a session used in all. Pure.

A session is summed up sample by sample in the memory of this process, honest about how many samples it saw.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime

from agents.resource_monitor.machine import GpuReading, MachineReading, ProcessReading
from contracts.resource_monitor import GpuUsage, ProcessUsage, ResourcesSummarised


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

    def telemetry(self, session: str) -> dict[str, object]:
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
                {"purpose": member.purpose, **asdict(member.process)}
                for member in self.members
                if member.session == session
            ],
            "gpus": [asdict(gpu) for gpu in self.gpus],
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
    # CPU seconds that our processes took between the two moments; a new one took all it has.
    earlier = {member.process.pid: member.process.cpu_seconds for member in was}
    ours = sum(max(0.0, each.process.cpu_seconds - earlier.get(each.process.pid, 0.0)) for each in members)
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


@dataclass
class LoadSummary:
    """Mean and largest value of a figure over the samples so far."""

    count: int = 0
    total: float = 0.0
    largest: float = 0.0

    def add(self, value: float | None) -> None:
        """Take in one value; an unknown one is left out."""
        if value is not None:
            self.count, self.total = self.count + 1, self.total + value
            self.largest = max(self.largest, value)

    @property
    def mean(self) -> float:
        """The mean of what was taken in; 0 of nothing."""
        return self.total / self.count if self.count else 0.0


@dataclass
class ChildTally:
    """What all processes of one purpose took together."""

    cpu: dict[int, float] = field(default_factory=dict)
    memory: LoadSummary = field(default_factory=LoadSummary)

    def summary(self) -> ProcessUsage:
        """The tally in the form in which `resources.summarised` records it."""
        return ProcessUsage(
            processes=len(self.cpu),
            cpu_seconds=round(sum(self.cpu.values()), 2),
            memory_bytes_max=int(self.memory.largest),
        )


@dataclass
class GpuTally:
    """What one GPU used during the session."""

    name: str
    percent: LoadSummary = field(default_factory=LoadSummary)
    memory: LoadSummary = field(default_factory=LoadSummary)
    celsius: LoadSummary = field(default_factory=LoadSummary)
    watts: LoadSummary = field(default_factory=LoadSummary)
    joules: float = 0.0

    def add(self, seen: GpuReading, seconds: float) -> None:
        """Take in one reading, `seconds` after the one before."""
        self.percent.add(seen.percent)
        self.memory.add(seen.memory_bytes)
        self.celsius.add(seen.celsius)
        self.watts.add(seen.watts)
        self.joules += (seen.watts or 0.0) * max(0.0, seconds)

    def summary(self) -> GpuUsage:
        """The tally in the form in which `resources.summarised` records it."""
        return GpuUsage(
            name=self.name,
            percent_mean=round(self.percent.mean, 2),
            memory_bytes_max=int(self.memory.largest),
            celsius_max=self.celsius.largest,
            watts_mean=round(self.watts.mean, 2),
            joules=round(self.joules, 1),
        )


@dataclass
class Tally:
    """What one session has used so far: CPU and memory of the machine, its processes, the GPUs."""

    samples: int = 0
    cpu: LoadSummary = field(default_factory=LoadSummary)
    memory: LoadSummary = field(default_factory=LoadSummary)
    children: dict[str, ChildTally] = field(default_factory=dict)
    gpus: dict[int, GpuTally] = field(default_factory=dict)

    def add(self, session: str, sample: Sample) -> None:
        """Take in one sample; of the processes, those that work for the session."""
        self.samples += 1
        self.cpu.add(sample.cpu_percent)
        self.memory.add(sample.memory_bytes)
        together: dict[str, int] = {}
        for member in sample.members:
            if member.session == session:
                used, process = self.children.setdefault(member.purpose, ChildTally()), member.process
                used.cpu[process.pid] = max(used.cpu.get(process.pid, 0.0), process.cpu_seconds)
                together[member.purpose] = together.get(member.purpose, 0) + process.memory_bytes
        for purpose, memory in together.items():
            self.children[purpose].memory.add(memory)
        for seen in sample.gpus:
            self.gpus.setdefault(seen.index, GpuTally(seen.name)).add(seen, sample.seconds)

    def summary(self, *, seconds: float, memory_total: int, disk_free: int) -> ResourcesSummarised:
        """The event that tells it; without samples the figures are zero and `samples` says so."""
        return ResourcesSummarised(
            seconds=seconds,
            cpu_percent_mean=round(self.cpu.mean, 2),
            cpu_percent_max=round(self.cpu.largest, 2),
            memory_bytes_max=int(self.memory.largest),
            memory_total_bytes=memory_total,
            disk_free_bytes=disk_free,
            samples=self.samples,
            children={purpose: used.summary() for purpose, used in sorted(self.children.items())},
            gpus=[gpu.summary() for _, gpu in sorted(self.gpus.items())],
        )


def seconds_between(first: str, last: str) -> float:
    """Seconds from one event's time to another's."""
    begin, end = (datetime.fromisoformat(time) for time in (first, last))
    return round((end - begin).total_seconds(), 3)
