"""What the data manager says: a dataset is ready, or why it is not."""

from __future__ import annotations

from typing import Any, Literal

from contracts.event import DATA_MANAGER, Event, Hex64, Payload, Value


class Finding(Value):
    """One thing noticed about the data: what, how often, and where it was seen first."""

    kind: str
    count: int
    where: list[str]
    severity: str = "note"


class Origins(Value):
    """What the source calls the rows of each split, in their order: a blob of ascending row numbers, or of file names.

    Numbers count from 1, as int64, little-endian; names are lines of JSON. Rows made from others come behind these.
    """

    called: Literal["row", "file"]
    blobs: dict[str, Hex64]


def _without_origins(old: Payload) -> Payload:
    return old | {"origins": None}


class DatasetPrepared(Event, lane=DATA_MANAGER, wire="dataset.prepared", upcasts=[_without_origins]):
    """A canonical dataset stands in the blob store under its Merkle root; since version 2 its rows have their names."""

    root: Hex64
    rows: int
    splits: dict[str, int]
    bytes: int
    source: str
    source_digest: Hex64
    facts: dict[str, Any]
    findings: list[Finding]
    reused: bool = False
    origins: Origins | None = None


class DatasetRejected(Event, lane=DATA_MANAGER, wire="dataset.rejected"):
    """The data cannot be used; every reason is listed with its cure."""

    source: str
    problems: list[dict[str, str]]
