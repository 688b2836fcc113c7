"""What the exporter says: a model left the swarm, proven equal to the one that was trained, or was refused."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Self

from contracts.envelope import Fact
from contracts.event import EXPORTER, Event, Exact, Hex64, Payload, Value
from contracts.kind import Carrier, Kind, KindState, having

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
    request: dict[str, Any]

    @property
    def filename(self) -> str:
        """`model.onnx` for the best checkpoint, else the name says which; a quantisation is named too."""
        which = "" if self.wanted == "best" else f"-{self.wanted}" if self.wanted == "last" else f"-step{self.step}"
        quantize = f".{self.quantize}" if self.quantize else ""
        return f"model{which}{quantize}.{_SUFFIX.get(self.format, self.format)}"


_SUFFIX = {"torchscript": "pt"}


class ModelExported(Event, lane=EXPORTER, wire="model.exported"):
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
    details: dict[str, Any]

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
