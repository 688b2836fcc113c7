"""What the data manager says: a dataset is ready, or why it is not."""

from typing import Literal

from pydantic import Field, JsonValue

from contracts.event import Event, Hex64, PartialValue, Payload, Value, fitted
from contracts.roles import DATA_MANAGER


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


class ColumnFacts(Value):
    """One column: numpy's name of the dtype and the shape of one row; -1 means any length."""

    dtype: str
    shape: list[int]


class DatasetFacts(PartialValue):
    """What `runtime.engine.facts.Facts` says of the rows; lists that are too long for an event are empty.

    A figure that is not finite is None.
    """

    task: str
    rows: dict[str, int] = Field(default_factory=dict)
    columns: dict[str, ColumnFacts] = Field(default_factory=dict)
    outputs: int = 1
    labels: list[str] = Field(default_factory=list)
    features: list[str] = Field(default_factory=list)
    mean: list[float | None] = Field(default_factory=list)
    scale: list[float | None] = Field(default_factory=list)
    target_mean: float | None = 0.0
    target_scale: float | None = 1.0
    extra: dict[str, JsonValue] = Field(default_factory=dict)
    counts: list[int] = Field(default_factory=list)


def _without_origins(old: Payload) -> Payload:
    return old | {"origins": None}


def _typed_facts(old: Payload) -> Payload:
    return old | {"facts": fitted(DatasetFacts, old["facts"], task="other")}


class DatasetPrepared(Event, lane=DATA_MANAGER, wire="dataset.prepared", upcasts=[_without_origins, _typed_facts]):
    """A canonical dataset stands in the blob store under its Merkle root; since version 2 its rows have their names."""

    root: Hex64
    rows: int
    splits: dict[str, int]
    bytes: int
    source: str
    source_digest: Hex64
    facts: DatasetFacts
    findings: list[Finding]
    reused: bool = False
    origins: Origins | None = None


class DatasetRejected(Event, lane=DATA_MANAGER, wire="dataset.rejected"):
    """The data cannot be used; every reason is listed with its cure."""

    source: str
    problems: list[dict[str, str]]
