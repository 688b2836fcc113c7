"""Thresholds that are crossed once: a level rises when a value stays beyond it, and falls only a margin below. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from agents.resource_monitor.usage import Sample
from contracts.resource_monitor import ResourcesAlerted

Resource = Literal["cpu", "memory", "disk", "store", "gpu_memory", "gpu_temperature"]
Level = Literal["", "warning", "critical"]
RANK: dict[str, int] = {"": 0, "warning": 1, "critical": 2}


@dataclass(frozen=True, slots=True)
class Limit:
    """When a resource runs short; `below` means that small values are the bad ones."""

    resource: Resource
    warning: float
    critical: float
    margin: float
    advice: str
    samples: int = 1
    below: bool = False

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

    def after(self, value: float | None) -> Gate:
        """The gate after one more value; an unknown value changes nothing."""
        if value is None:
            return self
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
        threshold = self.limit.critical if self.level == "critical" else self.limit.warning
        return ResourcesAlerted(
            resource=self.limit.resource,
            level=self.level,
            value=round(self.value, 3),
            threshold=threshold,
            advice=self.limit.advice,
        )


def limits(*, min_free_disk: int, store_bytes: int) -> tuple[Limit, ...]:
    """The limits of a host with these settings."""
    return (
        # A busy processor makes training slower and nothing wrong: that is never critical.
        Limit(
            "cpu", 60, math.inf, 10, "Other programs take the processors: training is right, and slower.", samples=30
        ),
        Limit("memory", 85, 95, 5, "Choose a smaller training.batch_size, or end other programs.", samples=3),
        Limit(
            "disk",
            4 * min_free_disk,
            min_free_disk,
            min_free_disk,
            "Free space or move the home: new sessions are refused below the second threshold, running ones finish.",
            below=True,
        ),
        Limit("store", 0.8 * store_bytes, 0.9 * store_bytes, 0.02 * store_bytes, "Raise the setting store_bytes."),
        Limit("gpu_memory", 92, 98, 4, "Choose a smaller training.batch_size or bf16.", samples=3),
        Limit("gpu_temperature", 84, 92, 4, "The device will slow down: look at its cooling.", samples=5),
    )


def values(sample: Sample, store: int | None) -> Mapping[Resource, float | None]:
    """The figures of a sample by the names of the limits; None where one is unknown."""
    memory, total = sample.memory_bytes, sample.memory_total_bytes
    full = [100 * gpu.memory_bytes / gpu.memory_total_bytes for gpu in sample.gpus if gpu.knows_memory]
    heat = [gpu.celsius for gpu in sample.gpus if gpu.celsius is not None]
    return {
        "cpu": sample.cpu_percent_of_others,
        "memory": 100 * memory / total if total else None,
        "disk": float(sample.disk_free_bytes),
        "store": None if store is None else float(store),
        "gpu_memory": max(full, default=None),
        "gpu_temperature": max(heat, default=None),
    }
