"""What an audit lays out and finds, as values: events tell them, and `swarm audit --json` prints the findings.

Members that older versions of this software did not have stay absent in what it told, so they have defaults.
"""

from typing import Literal

from pydantic import Field

from contracts.event import PartialValue, Payload, Value, fitted
from contracts.exporter import ExportOrder

Mode = Literal["log", "spot", "full", "bisect"]
"""How an audit looks at a session: at its log alone, at some spans, at all, or for the first that differs."""


class SpanPlanned(Value):
    """Steps of a session between two places at which its state was kept, to be computed again in one piece."""

    number: int
    segments: int
    begins: int
    ends: int


class AuditedMachine(PartialValue):
    """Whose bits are wanted: what the first claim says of its process, its fingerprint, and what the engine computed.

    A member that the claim does not say, or says in no form that a machine has, is absent.
    """

    threads: int | None = None
    device: str = "cpu"
    precision: str = "fp32"
    profile: str = ""
    fingerprint: str = ""
    engine_bits: int = 0


class AuditRequest(PartialValue):
    """What the genesis of an audit in a swarm asks for: a session, as the ledger signed it, and how to look at it."""

    name: str = ""
    session: str
    mode: Mode
    segments: int = 5
    seed: int = 0
    size: int
    root: str
    sealed: bool = False
    machine: AuditedMachine


class RecordedExport(Value):
    """An exported file of the audited session: the event that tells of it, its place, and what it was made of.

    `beside` are the digests of its companions by suffix, `sources` those of the code of workloads by name. Without an
    order the session wrote no checkpoint of which it is told to be.
    """

    export: str
    place: int
    seq: int
    filename: str
    blob: str
    beside: dict[str, str]
    sources: dict[str, str]
    order: ExportOrder | None


class SpanDivergence(PartialValue):
    """The first thing recorded of a span that did not come out again, its place in the log, and both forms of it.

    `place` and `seq` are those of the record, `field` is what of it differs: empty for all of it, `end` for the end of
    the training. `blob` is that of a checkpoint, `step` the first step whose loss differs, where losses do.
    """

    name: str
    first: int
    last: int
    place: int
    seq: int
    blob: str = ""
    segment: int | None
    field: str
    recorded: str
    computed: str
    step: int = -1


class OperatorDifference(Value):
    """The first operator of an attempt that gave two outputs in two runs; none are known where one run had it alone."""

    attempt: int
    number: int
    module: str
    operator: str
    outputs: list[str]


class DivergencePlace(PartialValue):
    """What computing step by step says of the place of a divergence.

    `step` is None where no loss tells it; `tensor` is the first one of a checkpoint that differs, None when all are the
    same. `operators_compared` operators of these `attempts` were run twice, `reproducible` when steps gave the same.
    """

    span: int
    window: list[int]
    field: str
    step: int | None = None
    reproducible: bool = False
    attempts: list[int] = Field(default_factory=list)
    operator: OperatorDifference | None = None
    operators_compared: int = 0
    tensor: str | None = None
    sentences: list[str]


class FoundDivergence(PartialValue):
    """One thing that does not hold: its place in the session (0 when it has none), in the stream, and a sentence.

    That of a span says as well what `SpanDivergence` says of it, in which span it is, and by which segment's plan the
    span was computed.
    """

    position: int
    seq: int
    what: str
    message: str
    first: int = 0
    last: int = 0
    blob: str = ""
    segment: int | None = None
    field: str = ""
    recorded: str = ""
    computed: str = ""
    step: int = -1
    span: int = 0
    line: int = 0


class AuditFindings(PartialValue):
    """Everything that an audit answers with, under the names that programs rely on.

    What is computed again (`seed` and all that follows) is absent where the log alone was looked at.
    """

    session: str
    mode: str
    bundle: str | None = None
    verdict: Literal["pass", "fail", "not-comparable"]
    events: int = 0
    lanes: int = 0
    lane_heads: dict[str, str] = Field(default_factory=dict)
    signatures: int = 0
    checkpoints: int = 0
    signed_events: int = 0
    blobs: int = 0
    anchors: int = 0
    decisions: int = 0
    root: str = "unanchored"
    sealed: str | None = None
    spans_checked: int = 0
    spans_total: int = 0
    unchecked: list[str] = Field(default_factory=list)
    first_divergence: FoundDivergence | None = None
    divergences: int = 0
    seed: int | None = None
    detection: dict[str, float] = Field(default_factory=dict)
    differing: list[str] = Field(default_factory=list)
    steps_checked: int = 0
    spans_resumed: int = 0
    exports_checked: int = 0
    located: DivergencePlace | None = None


def fitted_divergence(old: object) -> Payload:
    """A divergence of a span, as older versions told it."""
    nothing = dict(name="", first=0, last=0, place=0, seq=0, segment=None, field="", recorded="", computed="")
    return fitted(SpanDivergence, old, **nothing)


def fitted_place(old: object) -> Payload:
    """The place of a divergence, as older versions told it."""
    return fitted(DivergencePlace, old, span=0, window=[], field="", sentences=[])


def fitted_findings(old: Payload, session: str, mode: str, verdict: str) -> Payload:
    """The findings of an audit of this session, as older versions told them: a divergence among them stays one."""
    found = dict(old)
    if first := found.get("first_divergence"):
        found["first_divergence"] = fitted(FoundDivergence, first, position=0, seq=0, what="", message="")
    if located := found.get("located"):
        found["located"] = fitted_place(located)
    return fitted(AuditFindings, found, session=session, mode=mode, verdict=verdict)


def fitted_export(old: object) -> Payload:
    """An exported file to be made again, as older versions told it."""
    nothing = dict(export="", place=0, seq=0, filename="", blob="", beside={}, sources={}, order=None)
    return fitted(RecordedExport, old, **nothing)
