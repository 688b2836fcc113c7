"""Sums up what a session cost, sample by sample, in the memory of this process: honest about how many it saw. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from agents.resource_monitor.gpu import GpuReading
from agents.resource_monitor.sample import Sample
from contracts.resource_monitor import ResourcesSummarised


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

    def summary(self) -> dict[str, Any]:
        """The tally in the form in which `resources.summarised` records it."""
        return {
            "processes": len(self.cpu),
            "cpu_seconds": round(sum(self.cpu.values()), 2),
            "memory_bytes_max": int(self.memory.largest),
        }


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

    def summary(self) -> dict[str, Any]:
        """The tally in the form in which `resources.summarised` records it."""
        return {
            "name": self.name,
            "percent_mean": round(self.percent.mean, 2),
            "memory_bytes_max": int(self.memory.largest),
            "celsius_max": self.celsius.largest,
            "watts_mean": round(self.watts.mean, 2),
            "joules": round(self.joules, 1),
        }


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
        for one in sample.members:
            if one.session == session:
                kept = self.children.setdefault(one.purpose, ChildTally())
                kept.cpu[one.process.pid] = max(kept.cpu.get(one.process.pid, 0.0), one.process.cpu_seconds)
                together[one.purpose] = together.get(one.purpose, 0) + one.process.memory_bytes
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
            children={purpose: kept.summary() for purpose, kept in sorted(self.children.items())},
            gpus=[kept.summary() for _, kept in sorted(self.gpus.items())],
        )


def seconds_between(first: str, last: str) -> float:
    """Seconds from one event's time to another's."""
    begin, end = (datetime.fromisoformat(one) for one in (first, last))
    return round((end - begin).total_seconds(), 3)
