"""Thresholds that are crossed once: a level rises when a value stays beyond it, and falls only a margin below. Pure."""

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from agents.resource_monitor.gpus import GpuReading
from agents.resource_monitor.usage import Sample
from contracts.resource_monitor import AlertResource, ResourcesAlerted
from runtime.home.settings import Threshold

Level = Literal["", "warning", "critical"]
RANK: dict[str, int] = {"": 0, "warning": 1, "critical": 2}


@dataclass(frozen=True, slots=True)
class Limit:
    """When a resource runs short; `below` means that small values are the bad ones."""

    resource: AlertResource
    warning: float
    critical: float
    margin: float
    advice: str
    """What to do where the swarm itself takes most of it, or where nobody tells."""
    samples: int = 1
    below: bool = False
    advice_of_others: str = ""
    """What to do where other programs take most of it; the same where empty."""

    def reached(self, value: float, *, kept: Level = "") -> Level:
        """The level of a value; one that has been reached is kept until the value is `margin` on the good side."""
        sign = -1 if self.below else 1
        for level, threshold in (("critical", self.critical), ("warning", self.warning)):
            slack = self.margin if RANK[kept] >= RANK[level] else 0.0
            if sign * value >= sign * threshold - slack:
                return level  # type: ignore[return-value]
        return ""


@dataclass(frozen=True, slots=True)
class Gate:
    """One limit, the alert level that its values have reached, and how many samples wait to confirm a higher one."""

    limit: Limit
    level: Level = ""
    value: float = 0.0
    waited: int = 0
    swarm: float | None = None
    """How much of the value is the swarm's own; None where nobody tells."""

    def after(self, value: float | None, swarm: float | None = None) -> "Gate":
        """The gate after one more value; an unknown value changes nothing."""
        if value is None:
            return self
        return replace(self._after(value), swarm=swarm)

    def _after(self, value: float) -> "Gate":
        reached = self.limit.reached(value, kept=self.level)
        if RANK[reached] <= RANK[self.level]:
            return replace(self, level=reached, value=value, waited=0)
        if self.waited + 1 < self.limit.samples:
            return replace(self, waited=self.waited + 1)
        return replace(self, level=reached, value=value, waited=0)

    def alert(self) -> ResourcesAlerted | None:
        """The event for the level that has been reached."""
        if not self.level:
            return None
        limit, swarm = self.limit, self.swarm
        threshold = limit.critical if self.level == "critical" else limit.warning
        of_others = swarm is not None and 2 * swarm < self.value
        return ResourcesAlerted(
            resource=self.limit.resource,
            level=self.level,
            value=round(self.value, 3),
            threshold=threshold,
            advice=(limit.advice_of_others if of_others else "") or limit.advice,
            swarm=None if swarm is None else round(swarm, 3),
        )


def limits(*, min_free_disk: int, store_bytes: int, others: Iterable[Threshold] = ()) -> tuple[Limit, ...]:
    """The limits of a host with these settings; `others` are thresholds that its owner prefers."""
    preferred = {threshold.resource: threshold for threshold in others}
    return tuple(
        replace(limit, **preferred[limit.resource].figures()) if limit.resource in preferred else limit
        for limit in _usual(min_free_disk, store_bytes)
    )


def _usual(min_free_disk: int, store_bytes: int) -> tuple[Limit, ...]:
    end_others = "End other programs, or train elsewhere."
    smaller = "Halve training.batch_size and double training.accumulate: a step has the same rows and takes less."
    slower = "Other programs take the processors: training is right, and slower."
    return (
        # A busy processor makes training slower and nothing wrong: that is never critical. What counts is what
        # others take, so its value has no part of the swarm's.
        Limit("cpu", 60, math.inf, 10, slower, samples=30),
        Limit("memory", 85, 95, 5, smaller, samples=3, advice_of_others=end_others),
        Limit(
            "disk",
            4 * min_free_disk,
            min_free_disk,
            min_free_disk,
            "Free space or move the home: new sessions are refused below the second threshold, running ones finish.",
            below=True,
        ),
        Limit("store", 0.8 * store_bytes, 0.9 * store_bytes, 0.02 * store_bytes, "Raise the setting store_bytes."),
        Limit(
            "disk_io", 60, math.inf, 20, "Programs wait for the disk: keep data and home on a faster one.", samples=30
        ),
        Limit(
            "network", 90, math.inf, 20, "The network is full: blobs and events wait. Move large copies.", samples=30
        ),
        Limit("gpu_memory", 92, 98, 4, smaller, samples=3, advice_of_others=end_others),
        Limit("gpu_temperature", 84, 92, 4, "The device will slow down: look at its cooling.", samples=5),
        Limit("gpu_throttled", 1, math.inf, 0.5, "Heat or a power brake holds the clock down: look at it.", samples=10),
        Limit(
            "gpu_errors", 1, 1, 0, "The device has errors: look up the XID, and test the device before you trust it."
        ),
    )


Share = tuple[float | None, float | None]
"""The value of a resource, and how much of it is the swarm's own; None where nobody tells."""
HOT = frozenset({"hardware slowdown", "heat (driver)", "heat (hardware)", "power brake"})
"""What holds a clock down that should not; a power limit is how the device is meant to work."""


def values(sample: Sample, store: int | None, errors: int = 0) -> Mapping[AlertResource, Share]:
    """The figures of a sample by the names of the limits; `errors` are those of GPUs since the monitor began."""
    memory, total = sample.memory_bytes, sample.memory_total_bytes
    pids = {member.process.pid for member in sample.members}
    fullest = max(
        ((100 * gpu.memory_bytes / gpu.memory_total_bytes, gpu) for gpu in sample.gpus if gpu.knows_memory),
        key=lambda pair: pair[0],
        default=None,
    )
    full, own = (None, None) if fullest is None else (fullest[0], _held(fullest[1], pids))
    heat = [gpu.celsius for gpu in sample.gpus if gpu.celsius is not None]
    slow = [100.0 for gpu in sample.gpus if HOT & set(gpu.throttled)]
    ours = 100 * min(sample.members_memory_bytes, memory) / total if total else None
    return {
        "cpu": (sample.cpu_percent_of_others, sample.cpu_percent - sample.cpu_percent_of_others),
        "memory": (100 * memory / total if total else None, ours),
        "disk": (float(sample.disk_free_bytes), None),
        "store": (None if store is None else float(store), None),
        "disk_io": (sample.waiting_percent, None),
        "network": (sample.link_percent, None),
        "gpu_memory": (full, own),
        "gpu_temperature": (max(heat, default=None), None),
        "gpu_throttled": (sum(slow) / len(sample.gpus) if sample.gpus else None, None),
        "gpu_errors": (float(errors) if sample.gpus else None, None),
    }


def _held(gpu: GpuReading, pids: Collection[int]) -> float | None:
    """The per cent of a GPU's memory that the swarm holds; None where the driver tells of no process."""
    if not any(process.memory_bytes for process in gpu.processes):
        return None
    return 100 * sum(one.memory_bytes for one in gpu.processes if one.pid in pids) / gpu.memory_total_bytes
