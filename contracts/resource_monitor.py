"""What the resource monitor says: what a session cost, and when something runs short."""

from __future__ import annotations

from typing import Any, Literal

from contracts.event import RESOURCE_MONITOR, Event


class ResourcesSummarised(Event, lane=RESOURCE_MONITOR, wire="resources.summarised"):
    """What the machine gave to a session between two moments."""

    seconds: float
    cpu_percent_mean: float
    cpu_percent_max: float
    memory_bytes_max: int
    memory_total_bytes: int
    disk_free_bytes: int
    samples: int
    children: dict[str, Any]
    gpus: list[dict[str, Any]]


class ResourcesAlerted(Event, lane=RESOURCE_MONITOR, wire="resources.alerted"):
    """A resource passed a threshold."""

    resource: Literal["cpu", "memory", "disk", "store", "gpu_memory", "gpu_temperature"]
    level: Literal["warning", "critical"]
    value: float
    threshold: float
    advice: str
