"""What the data manager says: a dataset is ready, or why it is not."""

from __future__ import annotations

from typing import Any

from contracts.event import Event, Hex64, Value


class Finding(Value):
    """One thing noticed about the data: what, how often, and where it was seen first."""

    kind: str
    count: int
    where: list[str]
    severity: str = "note"


class DatasetPrepared(Event, wire="dataset.prepared"):
    """A canonical dataset stands in the blob store under its Merkle root."""

    root: Hex64
    rows: int
    splits: dict[str, int]
    bytes: int
    source: str
    source_digest: Hex64
    facts: dict[str, Any]
    findings: list[Finding]
    reused: bool = False


class DatasetRejected(Event, wire="dataset.rejected"):
    """The data cannot be used; every reason is listed with its cure."""

    source: str
    problems: list[dict[str, str]]
