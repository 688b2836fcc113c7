"""What the exporter says: a model left the swarm, proven equal to the one that was trained, or was refused."""

from __future__ import annotations

from typing import Any

from contracts.event import Event, Exact, Hex64


class ModelExported(Event, wire="model.exported"):
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


class ExportRefused(Event, wire="export.refused"):
    """No file was published: the format, the reason, the cure."""

    format: str
    quantize: str
    checkpoint: str
    code: str
    message: str
    cure: str = ""


class ExportRepeated(Event, wire="export.repeated"):
    """An exported file was made again for an audit: what of it is not as it was, or why it could not be made."""

    export: str
    filename: str
    divergence: str = ""
    problem: str = ""


class ModelBenchmarked(Event, wire="model.benchmarked"):
    """Latency of an exported model in a child of its own."""

    format: str
    quantize: str
    blob: Hex64
    batch: int
    median_ms: float
    p95_ms: float
    runs: int
