"""What the exporter says: a model left the swarm, proven equal to the one that was trained, or was refused."""

import re
from dataclasses import dataclass
from typing import Self

from pydantic import Field

from contracts.envelope import Fact
from contracts.event import Event, Exact, Hex64, PartialValue, Payload, Value, fitted
from contracts.kind import Carrier, Kind, KindState, having
from contracts.roles import EXPORTER

_PLAIN = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}")


class ExportOrder(Value):
    """One file to be made: everything a job needs to know of the log."""

    format: str
    quantize: str
    wanted: str
    step: int
    blob: str
    state_root: str | None
    dataset: str
    request: dict[str, object]

    @property
    def filename(self) -> str:
        """`model.onnx` for the best checkpoint, else the name says which; a quantisation is named too."""
        which = "" if self.wanted == "best" else f"-{self.wanted}" if self.wanted == "last" else f"-step{self.step}"
        quantize = f".{self.quantize}" if self.quantize else ""
        return f"model{which}{quantize}.{_SUFFIX.get(self.format, self.format)}"


_SUFFIX = {"torchscript": "pt"}


class CalibrationRows(Value):
    """The rows by which ranges of numbers were found for a quantisation."""

    split: str
    dataset: str
    rows: int
    method: str


class ExportDetails(PartialValue):
    """What else is known of a file, by its format: its size in nodes or tensors, how it was quantised and compared.

    `beside` are the digests of its companions by suffix, `batches` the sizes of batches in which it was asked.
    """

    tensors: int = 0
    torch: str = ""
    nodes: int = 0
    deprecated: str = ""
    method: str = ""
    converted_nodes: int = 0
    calibration: CalibrationRows | None = None
    per_channel: bool = False
    reduce_range: bool = False
    advice: str = ""
    ir_version: int = 0
    opset: int = 0
    weights_digest: str = ""
    beside: dict[str, str] = Field(default_factory=dict)
    batches: list[int] = Field(default_factory=list)
    rows_judged: int = 0
    notes: list[str] = Field(default_factory=list)


def _typed_details(old: Payload) -> Payload:
    return old | {"details": fitted(ExportDetails, old["details"])}


class ModelExported(Event, lane=EXPORTER, wire="model.exported", upcasts=[_typed_details]):
    """A file in the blob store, and the proof that it computes what the checkpoint computes."""

    format: str
    quantize: str
    checkpoint: str
    checkpoint_step: int
    checkpoint_blob: Hex64
    blob: Hex64
    bytes: int
    filename: str
    opset: int | None
    parity: dict[str, Exact]
    rows_compared: int
    details: ExportDetails

    @property
    def plain_filename(self) -> str:
        """The name when it is one of a file in a folder; empty for any other, which no path is ever made of."""
        return self.filename if _PLAIN.fullmatch(self.filename) else ""


class ExportRefused(Event, lane=EXPORTER, wire="export.refused"):
    """No file was published: the format, the reason, the cure."""

    format: str
    quantize: str
    checkpoint: str
    code: str
    message: str
    cure: str = ""


def _without_a_cause(old: Payload) -> Payload:
    return old | {"differing": ""}


class ExportRepeated(Event, lane=EXPORTER, wire="export.repeated", upcasts=[_without_a_cause]):
    """An exported file was made again for an audit: what of it is not as it was, or why it could not be made.

    `problem` names what is missing on the exporter's machine. Since version 2 `differing` is how making it ended
    otherwise, by which the file cannot be compared.
    """

    export: str
    filename: str
    divergence: str = ""
    problem: str = ""
    differing: str = ""


class ModelBenchmarked(Event, lane=EXPORTER, wire="model.benchmarked"):
    """Latency of an exported model in a child of its own."""

    format: str
    quantize: str
    blob: Hex64
    batch: int
    median_ms: float
    p95_ms: float
    runs: int


@dataclass(frozen=True)
class ExportingState(KindState):
    """Of which sessions the models leave the swarm: what was exported, with the ids of the events, and refused."""

    exports: tuple[tuple[str, ModelExported], ...] = ()
    refusals: tuple[ExportRefused, ...] = ()

    def exported(self, event: ModelExported, fact: Fact) -> Self:
        """The state after one more file."""
        return having(self, exports=(*self.exports, (fact.id, event)))

    def refused(self, event: ExportRefused, fact: Fact) -> Self:
        """The state after one more refusal."""
        return having(self, refusals=(*self.refusals, event))


EXPORT = Kind(
    "export",
    ExportingState,
    carriers=(Carrier(EXPORTER),),
    ends={ModelExported: "completed", ExportRefused: "failed"},
    folds={ModelExported: ExportingState.exported, ExportRefused: ExportingState.refused},
)
"""The export of a session that is sealed, as a session of its own."""
