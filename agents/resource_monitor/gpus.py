"""NVIDIA GPUs as NVML tells of them; where there is no driver, library or device, nothing is loaded and nothing said.

Every figure is absent where a device, a driver or an older library does not tell it. It judges nothing.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

THROTTLES = {
    0x04: "power limit",
    0x08: "hardware slowdown",
    0x20: "heat (driver)",
    0x40: "heat (hardware)",
    0x80: "power brake",
}
"""What holds a clock down for want of power or cooling, by its bit; idling and clocks that a person set are neither."""

XID = 8
"""The type of event by which NVML tells of an XID error."""
MOST_XIDS = 16
"""XID errors that are taken from the driver at one reading; what is left comes with the next."""


@dataclass(frozen=True, slots=True)
class GpuProcess:
    """What one process holds of a GPU and, where the driver tells it, which share of its time it took."""

    pid: int
    memory_bytes: int
    percent: float | None = None


@dataclass(frozen=True, slots=True)
class GpuReading:
    """One GPU now; what the device does not tell is None, or 0 for its memory.

    `joules` and the errors are counted by the driver since it was loaded; `xids` are those since the reading before.
    """

    index: int
    name: str
    percent: float | None
    memory_bytes: int
    memory_total_bytes: int
    celsius: float | None
    watts: float | None
    mhz: float | None = None
    mhz_most: float | None = None
    throttled: tuple[str, ...] = ()
    ecc_corrected: int | None = None
    ecc_uncorrected: int | None = None
    xids: tuple[int, ...] = ()
    joules: float | None = None
    processes: tuple[GpuProcess, ...] = ()

    @property
    def knows_memory(self) -> bool:
        """Whether the device tells how full it is; else both figures are 0."""
        return self.memory_total_bytes > 0


class Gpus:
    """The GPUs of this machine, found once. `nvml` is the module `pynvml`, or what answers as it does."""

    def __init__(self, nvml: Any) -> None:
        self._nvml = nvml
        self._devices: list[tuple[int, str, Any]] = []
        self._seen: dict[int, int] = {}
        """By device, the time stamp of the newest share of a process that was read."""
        for index in range(nvml.nvmlDeviceGetCount()):
            device = nvml.nvmlDeviceGetHandleByIndex(index)
            name = nvml.nvmlDeviceGetName(device)
            self._devices.append((index, name.decode() if isinstance(name, bytes) else str(name), device))
        self._errors = self._ask("nvmlEventSetCreate")
        if self._errors is not None:
            for _, _, device in self._devices:
                self._ask("nvmlDeviceRegisterEvents", device, XID, self._errors)

    def __len__(self) -> int:
        return len(self._devices)

    def read(self) -> list[GpuReading]:
        """A reading of every GPU, as far as the driver tells."""
        xids = self._xids()
        return [self._reading(index, name, device, tuple(xids.get(index, ()))) for index, name, device in self._devices]

    def close(self) -> None:
        """Shut the driver down; no reading may follow."""
        if self._errors is not None:
            self._ask("nvmlEventSetFree", self._errors)
        self._ask("nvmlShutdown")

    def _reading(self, index: int, name: str, device: Any, xids: tuple[int, ...]) -> GpuReading:
        use, memory = self._ask("nvmlDeviceGetUtilizationRates", device), self._ask("nvmlDeviceGetMemoryInfo", device)
        held = self._ask("nvmlDeviceGetCurrentClocksThrottleReasons", device) or 0
        return GpuReading(
            index,
            name,
            None if use is None else float(use.gpu),
            0 if memory is None else int(memory.used),
            0 if memory is None else int(memory.total),
            self._number("nvmlDeviceGetTemperature", device, 0),
            self._number("nvmlDeviceGetPowerUsage", device, unit=1000),
            mhz=self._number("nvmlDeviceGetClockInfo", device, 1),
            mhz_most=self._number("nvmlDeviceGetMaxClockInfo", device, 1),
            throttled=tuple(word for bit, word in THROTTLES.items() if held & bit),
            ecc_corrected=self._ask("nvmlDeviceGetTotalEccErrors", device, 0, 0),
            ecc_uncorrected=self._ask("nvmlDeviceGetTotalEccErrors", device, 1, 0),
            xids=xids,
            joules=self._number("nvmlDeviceGetTotalEnergyConsumption", device, unit=1000),
            processes=self._processes(index, device),
        )

    def _processes(self, index: int, device: Any) -> tuple[GpuProcess, ...]:
        shares: dict[int, float] = {}
        for share in self._ask("nvmlDeviceGetProcessUtilization", device, self._seen.get(index, 0)) or ():
            self._seen[index] = max(self._seen.get(index, 0), int(share.timeStamp))
            shares[int(share.pid)] = float(share.smUtil)
        running = self._ask("nvmlDeviceGetComputeRunningProcesses", device) or ()
        # In a container the driver may hide what a process holds.
        return tuple(GpuProcess(int(one.pid), int(one.usedGpuMemory or 0), shares.get(int(one.pid))) for one in running)

    def _xids(self) -> dict[int, list[int]]:
        """Errors since the last call, by the index of their device."""
        found: dict[int, list[int]] = {}
        for _ in range(MOST_XIDS if self._errors is not None else 0):
            event = self._ask("nvmlEventSetWait_v2", self._errors, 0)
            if event is None:
                break
            if event.eventType & XID:
                index = self._ask("nvmlDeviceGetIndex", event.device)
                found.setdefault(int(index or 0), []).append(int(event.eventData))
        return found

    def _number(self, name: str, *args: Any, unit: float = 1.0) -> float | None:
        answer = self._ask(name, *args)
        return None if answer is None else float(answer) / unit

    def _ask(self, name: str, *args: Any) -> Any:
        query: Callable[..., Any] | None = getattr(self._nvml, name, None)
        try:
            return None if query is None else query(*args)
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
