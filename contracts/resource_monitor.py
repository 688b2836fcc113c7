"""What the resource monitor says: what a session cost, and when something runs short."""

from __future__ import annotations

from typing import Literal

from contracts.event import Event, Payload, Value, fitted
from contracts.roles import RESOURCE_MONITOR


class ProcessUsage(Value):
    """What all processes of one purpose took together."""

    processes: int
    cpu_seconds: float
    memory_bytes_max: int


class GpuUsage(Value):
    """What one GPU did meanwhile."""

    name: str
    percent_mean: float
    memory_bytes_max: int
    celsius_max: float
    watts_mean: float
    joules: float


def _typed_usage(old: Payload) -> Payload:
    none: Payload = dict(processes=0, cpu_seconds=0.0, memory_bytes_max=0)
    children = {purpose: fitted(ProcessUsage, used, **none) for purpose, used in old["children"].items()}
    idle: Payload = dict(name="", percent_mean=0.0, memory_bytes_max=0, celsius_max=0.0, watts_mean=0.0, joules=0.0)
    return old | {"children": children, "gpus": [fitted(GpuUsage, gpu, **idle) for gpu in old["gpus"]]}


class ResourcesSummarised(Event, lane=RESOURCE_MONITOR, wire="resources.summarised", upcasts=[_typed_usage]):
    """What the machine gave to a session between two moments."""

    seconds: float
    cpu_percent_mean: float
    cpu_percent_max: float
    memory_bytes_max: int
    memory_total_bytes: int
    disk_free_bytes: int
    samples: int
    children: dict[str, ProcessUsage]
    gpus: list[GpuUsage]


class ResourcesAlerted(Event, lane=RESOURCE_MONITOR, wire="resources.alerted"):
    """A resource passed a threshold."""

    resource: Literal["cpu", "memory", "disk", "store", "gpu_memory", "gpu_temperature"]
    level: Literal["warning", "critical"]
    value: float
    threshold: float
    advice: str
