"""Reads NVIDIA GPUs through NVML when there are any; where there are none, nothing is loaded and nothing is said."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


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
        return [self._one(index, name, device) for index, name, device in self._devices]

    def close(self) -> None:
        """Shut the driver down; no reading may follow."""
        self._ask(self._nvml.nvmlShutdown)

    def _one(self, index: int, name: str, device: Any) -> GpuReading:
        nvml = self._nvml
        use = self._ask(nvml.nvmlDeviceGetUtilizationRates, device)
        memory = self._ask(nvml.nvmlDeviceGetMemoryInfo, device)
        heat = self._ask(nvml.nvmlDeviceGetTemperature, device, nvml.NVML_TEMPERATURE_GPU)
        power = self._ask(nvml.nvmlDeviceGetPowerUsage, device)
        return GpuReading(
            index,
            name,
            None if use is None else float(use.gpu),
            0 if memory is None else int(memory.used),
            0 if memory is None else int(memory.total),
            None if heat is None else float(heat),
            None if power is None else power / 1000,
        )

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
        found = Gpus(nvml)
    except nvml.NVMLError:
        return None
    return found if len(found) else None
