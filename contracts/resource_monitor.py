"""What the resource monitor says: what a session cost, and when something runs short."""

from typing import Literal

from pydantic import Field, JsonValue

from contracts.event import Event, Payload, Value, fitted, unchanged
from contracts.roles import RESOURCE_MONITOR


class ProcessUsage(Value):
    """What all processes of one purpose took together."""

    processes: int
    cpu_seconds: float
    memory_bytes_max: int
    read_bytes: int = 0
    written_bytes: int = 0
    gpu_memory_bytes_max: int = 0


class GpuUsage(Value):
    """What one GPU did meanwhile; `throttled` are seconds by what held its clock down."""

    name: str
    percent_mean: float
    memory_bytes_max: int
    celsius_max: float
    watts_mean: float
    joules: float
    memory_total_bytes: int = 0
    mhz_mean: float = 0.0
    throttled: dict[str, float] = Field(default_factory=dict)
    ecc_uncorrected: int = 0
    xids: list[int] = Field(default_factory=list)


def _typed_usage(old: Payload) -> Payload:
    none: Payload = dict(processes=0, cpu_seconds=0.0, memory_bytes_max=0)
    children = {purpose: fitted(ProcessUsage, used, **none) for purpose, used in old["children"].items()}
    idle: Payload = dict(name="", percent_mean=0.0, memory_bytes_max=0, celsius_max=0.0, watts_mean=0.0, joules=0.0)
    return old | {"children": children, "gpus": [fitted(GpuUsage, gpu, **idle) for gpu in old["gpus"]]}


class ResourcesSummarised(Event, lane=RESOURCE_MONITOR, wire="resources.summarised", upcasts=[_typed_usage, unchanged]):
    """What the machine gave to a session between two moments.

    Since version 3 with what disks and network moved, and what throttled GPUs and which errors they had.
    """

    seconds: float
    cpu_percent_mean: float
    cpu_percent_max: float
    memory_bytes_max: int
    memory_total_bytes: int
    disk_free_bytes: int
    samples: int
    children: dict[str, ProcessUsage]
    gpus: list[GpuUsage]
    read_bytes: int = 0
    written_bytes: int = 0
    received_bytes: int = 0
    sent_bytes: int = 0


class ResourcesMeasured(Event, lane=RESOURCE_MONITOR, wire="resources.measured"):
    """What `epochs` epochs used, the last of which is number `epoch` and ended at `step`. Never compared with anything.

    Percentages are means, of the whole machine but for `session_cpu_percent`, which is of one processor; memory is the
    largest that was seen. None is what the machine does not tell.
    """

    epoch: int
    epochs: int
    step: int
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


AlertResource = Literal[
    "cpu",
    "memory",
    "disk",
    "store",
    "gpu_memory",
    "gpu_temperature",
    "disk_io",
    "network",
    "gpu_throttled",
    "gpu_errors",
]
"""What runs short, or goes wrong: what settings of a home set thresholds of."""


class ResourcesAlerted(Event, lane=RESOURCE_MONITOR, wire="resources.alerted", upcasts=[unchanged]):
    """A resource passed a threshold.

    Since version 2 also waiting for disks, network, throttled GPUs and their errors; `swarm` is what the swarm
    itself takes of it, in the same unit; None where nobody tells. The value of `cpu` is what others take.
    """

    resource: AlertResource
    level: Literal["warning", "critical"]
    value: float
    threshold: float
    advice: str
    swarm: float | None = None


AdviceFigure = Literal["rows_per_second", "seconds_per_epoch", "memory_bytes"]
"""What advice promises to change: of the training's time and, in memory, the most that its processes held."""


class ResourcesAdvised(Event, lane=RESOURCE_MONITOR, wire="resources.advised"):
    """What another value of some options is expected to be worth, by what this training used.

    `value` is the figure as it was here; it is promised to become at least `factor` times that, or at most for what is
    better when it is less. Nothing acts by it: a person, or the next request, does.
    """

    options: dict[str, JsonValue]
    instead_of: dict[str, JsonValue]
    figure: AdviceFigure
    value: float
    factor: float
    reason: str


class AdviceJudged(Event, lane=RESOURCE_MONITOR, wire="advice.judged"):
    """This training took advice that an earlier one got: the figure there and here, and whether the promise held."""

    session: str
    options: dict[str, JsonValue]
    figure: AdviceFigure
    before: float
    after: float
    promised: float
    held: bool
