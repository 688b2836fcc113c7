"""What happened between two readings of the machine, and what a session used in all. Pure.

A session is summed up sample by sample in the memory of this process, honest about how many samples it saw.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import TypedDict

from agents.resource_monitor.gpus import GpuReading
from agents.resource_monitor.machine import MachineReading, ProcessReading
from contracts.resource_monitor import GpuUsage, ProcessUsage, ResourcesMeasured, ResourcesSummarised

MOST_CHILDREN = 32
"""Processes of a session of which one sample tells."""
MOST_XIDS = 16
"""XID errors of a GPU that a summary names."""


@dataclass(frozen=True, slots=True)
class SwarmProcess:
    """One process of ours: what it is for, whose session it serves, what it uses.

    `cpu_percent` is of one processor; it and what was moved are since the sample before.
    """

    purpose: str
    session: str
    process: ProcessReading
    cpu_percent: float = 0.0
    read_per_s: float = 0.0
    written_per_s: float = 0.0
    gpu_memory_bytes: int = 0
    gpu_percent: float | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """One moment; percentages are of the whole machine, rates per second.

    `waiting_percent` is the share of the time in which some process waited for a disk, `link_percent` how much of what
    the network can carry was used; None where the machine does not tell.
    """

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
    disk_total_bytes: int = 0
    read_per_s: float = 0.0
    written_per_s: float = 0.0
    waiting_percent: float | None = None
    link_percent: float | None = None

    @property
    def members_memory_bytes(self) -> int:
        """What the processes of the swarm hold; pages that they share are counted for each."""
        return sum(member.process.memory_bytes for member in self.members)

    def of(self, session: str) -> tuple[SwarmProcess, ...]:
        """The processes that work for a session."""
        return tuple(member for member in self.members if member.session == session)

    def telemetry(self, session: str) -> dict[str, object]:
        """The sample as one session is shown it: the machine, and the session's own processes."""
        return {
            "uptime": self.uptime,
            "cpu_percent": round(self.cpu_percent, 2),
            "cpu_percent_of_others": round(self.cpu_percent_of_others, 2),
            "memory_bytes": self.memory_bytes,
            "memory_total_bytes": self.memory_total_bytes,
            "disk_free_bytes": self.disk_free_bytes,
            "disk_total_bytes": self.disk_total_bytes,
            "read_per_s": round(self.read_per_s, 1),
            "written_per_s": round(self.written_per_s, 1),
            "waiting_percent": _rounded(self.waiting_percent),
            "received_per_s": round(self.received_per_s, 1),
            "sent_per_s": round(self.sent_per_s, 1),
            "link_percent": _rounded(self.link_percent),
            "children": [
                {
                    "purpose": member.purpose,
                    **asdict(member.process),
                    "cpu_percent": round(member.cpu_percent, 1),
                    "read_per_s": round(member.read_per_s, 1),
                    "written_per_s": round(member.written_per_s, 1),
                    "gpu_memory_bytes": member.gpu_memory_bytes,
                    "gpu_percent": member.gpu_percent,
                }
                for member in self.of(session)[:MOST_CHILDREN]
            ],
            "gpus": [asdict(replace(gpu, processes=())) for gpu in self.gpus],
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

    def rate(first: float, last: float) -> float:
        return max(0.0, last - first) / seconds if seconds > 0 else 0.0

    # What our processes took between the two moments; a new one took all it has.
    earlier = {member.process.pid: member.process for member in was}
    held = {process.pid: process for gpu in gpus for process in gpu.processes}
    ours, rated = 0.0, []
    for member in members:
        process = member.process
        first = earlier.get(process.pid, ProcessReading(process.pid, 0.0, 0))
        spent = max(0.0, process.cpu_seconds - first.cpu_seconds)
        ours += spent
        gpu = held.get(process.pid)
        rated.append(
            replace(
                member,
                cpu_percent=100 * rate(0.0, spent),
                read_per_s=rate(first.read_bytes, process.read_bytes),
                written_per_s=rate(first.written_bytes, process.written_bytes),
                gpu_memory_bytes=gpu.memory_bytes if gpu else 0,
                gpu_percent=gpu.percent if gpu else None,
            )
        )
    received, sent = rate(before.received, now.received), rate(before.sent, now.sent)
    knows_stalls = now.stalled is not None and before.stalled is not None
    return Sample(
        uptime=now.uptime,
        seconds=seconds,
        cpu_percent=100 * min(1.0, max(0.0, busy)),
        cpu_percent_of_others=100 * min(1.0, max(0.0, busy - (ours / ticks if ticks > 0 else 0.0))),
        memory_bytes=now.memory_used,
        memory_total_bytes=now.memory_total,
        disk_free_bytes=now.disk_free,
        received_per_s=received,
        sent_per_s=sent,
        members=tuple(rated),
        gpus=tuple(gpus),
        disk_total_bytes=now.disk_total,
        read_per_s=rate(before.disk_read, now.disk_read),
        written_per_s=rate(before.disk_written, now.disk_written),
        waiting_percent=min(100.0, 100 * rate(before.stalled or 0.0, now.stalled or 0.0)) if knows_stalls else None,
        link_percent=min(100.0, 100 * max(received, sent) / now.link) if now.link else None,
    )


def gpu_errors(before: Sequence[GpuReading], now: Sequence[GpuReading]) -> int:
    """The XID errors, and errors of memory that could not be corrected, that came between two readings."""
    earlier = {gpu.index: gpu.ecc_uncorrected for gpu in before}
    return sum(
        len(gpu.xids) + max(0, (gpu.ecc_uncorrected or 0) - (earlier.get(gpu.index, gpu.ecc_uncorrected) or 0))
        for gpu in now
    )


def _rounded(figure: float | None) -> float | None:
    return None if figure is None else round(figure, 2)


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
    moved: dict[int, tuple[int, int]] = field(default_factory=dict)
    memory: LoadSummary = field(default_factory=LoadSummary)
    gpu_memory: LoadSummary = field(default_factory=LoadSummary)

    def add(self, members: Sequence[SwarmProcess]) -> None:
        """Take in the processes of the purpose that one sample saw."""
        for member in members:
            process = member.process
            self.cpu[process.pid] = max(self.cpu.get(process.pid, 0.0), process.cpu_seconds)
            self.moved[process.pid] = process.read_bytes, process.written_bytes
        self.memory.add(sum(member.process.memory_bytes for member in members))
        self.gpu_memory.add(sum(member.gpu_memory_bytes for member in members))

    def summary(self) -> ProcessUsage:
        """The tally in the form in which `resources.summarised` records it."""
        return ProcessUsage(
            processes=len(self.cpu),
            cpu_seconds=round(sum(self.cpu.values()), 2),
            memory_bytes_max=int(self.memory.largest),
            read_bytes=sum(read for read, _ in self.moved.values()),
            written_bytes=sum(written for _, written in self.moved.values()),
            gpu_memory_bytes_max=int(self.gpu_memory.largest),
        )


@dataclass
class GpuTally:
    """What one GPU used during the session."""

    name: str
    memory_total: int = 0
    percent: LoadSummary = field(default_factory=LoadSummary)
    memory: LoadSummary = field(default_factory=LoadSummary)
    celsius: LoadSummary = field(default_factory=LoadSummary)
    watts: LoadSummary = field(default_factory=LoadSummary)
    mhz: LoadSummary = field(default_factory=LoadSummary)
    joules: float = 0.0
    throttled: dict[str, float] = field(default_factory=dict)
    ecc: int = 0
    xids: list[int] = field(default_factory=list)
    before: GpuReading | None = None

    def add(self, seen: GpuReading, seconds: float) -> None:
        """Take in one reading, `seconds` after the one before."""
        self.memory_total = seen.memory_total_bytes
        self.percent.add(seen.percent)
        self.memory.add(seen.memory_bytes)
        self.celsius.add(seen.celsius)
        self.watts.add(seen.watts)
        self.mhz.add(seen.mhz)
        before, self.before = self.before, seen
        if before is not None and before.joules is not None and seen.joules is not None:
            self.joules += max(0.0, seen.joules - before.joules)
        else:
            self.joules += (seen.watts or 0.0) * max(0.0, seconds)
        for reason in seen.throttled:
            self.throttled[reason] = self.throttled.get(reason, 0.0) + max(0.0, seconds)
        if before is not None and before.ecc_uncorrected is not None and seen.ecc_uncorrected is not None:
            self.ecc += max(0, seen.ecc_uncorrected - before.ecc_uncorrected)
        self.xids = [*self.xids, *seen.xids][:MOST_XIDS]

    def summary(self) -> GpuUsage:
        """The tally in the form in which `resources.summarised` records it."""
        return GpuUsage(
            name=self.name,
            percent_mean=round(self.percent.mean, 2),
            memory_bytes_max=int(self.memory.largest),
            celsius_max=self.celsius.largest,
            watts_mean=round(self.watts.mean, 2),
            joules=round(self.joules, 1),
            memory_total_bytes=self.memory_total,
            mhz_mean=round(self.mhz.mean, 1),
            throttled={reason: round(seconds, 1) for reason, seconds in sorted(self.throttled.items())},
            ecc_uncorrected=self.ecc,
            xids=self.xids,
        )


class Figures(TypedDict):
    """What the machine and a session's processes used over some samples: means, sums of bytes, largest memory.

    `session_cpu_percent` is of one processor. What is not known is None.
    """

    samples: int
    seconds: float
    cpu_percent: float
    session_cpu_percent: float
    memory_bytes: int
    session_memory_bytes: int
    disk_free_bytes: int
    read_bytes: int
    written_bytes: int
    received_bytes: int
    sent_bytes: int
    waiting_percent: float | None
    gpu_percent: float | None
    gpu_memory_bytes: int | None
    joules: float | None


@dataclass
class Tally:
    """What one session has used over some samples: CPU, memory, disk and network of the machine, processes, GPUs."""

    samples: int = 0
    seconds: float = 0.0
    cpu: LoadSummary = field(default_factory=LoadSummary)
    memory: LoadSummary = field(default_factory=LoadSummary)
    own_cpu: LoadSummary = field(default_factory=LoadSummary)
    own_memory: LoadSummary = field(default_factory=LoadSummary)
    waiting: LoadSummary = field(default_factory=LoadSummary)
    moved: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    """Bytes read, written, received and sent by the machine."""
    disk_free: int = 0
    children: dict[str, ChildTally] = field(default_factory=dict)
    gpus: dict[int, GpuTally] = field(default_factory=dict)

    def add(self, session: str, sample: Sample) -> None:
        """Take in one sample; of the processes, those that work for the session."""
        seconds, mine = max(0.0, sample.seconds), sample.of(session)
        self.samples += 1
        self.seconds += seconds
        self.cpu.add(sample.cpu_percent)
        self.memory.add(sample.memory_bytes)
        self.own_cpu.add(sum(member.cpu_percent for member in mine))
        self.own_memory.add(sum(member.process.memory_bytes for member in mine))
        self.waiting.add(sample.waiting_percent)
        self.disk_free = sample.disk_free_bytes
        rates = (sample.read_per_s, sample.written_per_s, sample.received_per_s, sample.sent_per_s)
        read, written, received, sent = (sum_ + rate * seconds for sum_, rate in zip(self.moved, rates, strict=True))
        self.moved = read, written, received, sent
        for purpose in dict.fromkeys(member.purpose for member in mine):
            self.children.setdefault(purpose, ChildTally()).add([one for one in mine if one.purpose == purpose])
        for seen in sample.gpus:
            self.gpus.setdefault(seen.index, GpuTally(seen.name)).add(seen, seconds)

    def figures(self) -> Figures:
        """All of it in a few numbers."""
        read, written, received, sent = map(int, self.moved)
        gpus = list(self.gpus.values())
        shares = [gpu.percent.mean for gpu in gpus if gpu.percent.count]
        return {
            "samples": self.samples,
            "seconds": round(self.seconds, 2),
            "cpu_percent": round(self.cpu.mean, 2),
            "session_cpu_percent": round(self.own_cpu.mean, 2),
            "memory_bytes": int(self.memory.largest),
            "session_memory_bytes": int(self.own_memory.largest),
            "disk_free_bytes": self.disk_free,
            "read_bytes": read,
            "written_bytes": written,
            "received_bytes": received,
            "sent_bytes": sent,
            "waiting_percent": round(self.waiting.mean, 2) if self.waiting.count else None,
            "gpu_percent": round(sum(shares) / len(shares), 2) if shares else None,
            "gpu_memory_bytes": int(sum(gpu.memory.largest for gpu in gpus)) if gpus else None,
            "joules": round(sum(gpu.joules for gpu in gpus), 1) if gpus else None,
        }

    def measured(self, *, epoch: int, epochs: int, step: int) -> ResourcesMeasured:
        """The event that tells what these epochs used, of which `epoch` is the last and ended at `step`."""
        return ResourcesMeasured(epoch=epoch, epochs=epochs, step=step, **self.figures())

    def summary(self, *, seconds: float, memory_total: int, disk_free: int) -> ResourcesSummarised:
        """The event that tells it; without samples the figures are zero and `samples` says so."""
        read, written, received, sent = map(int, self.moved)
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
            read_bytes=read,
            written_bytes=written,
            received_bytes=received,
            sent_bytes=sent,
        )


def seconds_between(first: str, last: str) -> float:
    """Seconds from one event's time to another's."""
    begin, end = (datetime.fromisoformat(time) for time in (first, last))
    return round((end - begin).total_seconds(), 3)
