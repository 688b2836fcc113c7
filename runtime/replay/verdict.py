"""What an audit finds, in any mode: verdicts, their form for programs, and how results of spans become one. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal, Self

from contracts.errors import count_of
from contracts.event import Value
from contracts.findings import AuditFindings, DivergencePlace, FoundDivergence, Mode, SpanDivergence, SpanPlanned

if TYPE_CHECKING:
    from runtime.replay.audit_plan import AuditPlan


UNANCHORED = "unanchored"


@dataclass(frozen=True, slots=True)
class Divergence:
    """One thing that does not hold: its place in the session (0 when it has none), in the stream, and a sentence."""

    position: int
    seq: int
    what: str
    message: str

    def found(self) -> FoundDivergence:
        """The divergence as an audit tells it."""
        return FoundDivergence(position=self.position, seq=self.seq, what=self.what, message=self.message)


@dataclass(frozen=True)
class Verdict:
    """What an audit found; `unchecked` says what it could not or did not look at."""

    session: str
    verdict: Literal["pass", "fail", "not-comparable"]
    mode: str = "log"
    bundle: str = ""
    events: int = 0
    lane_heads: dict[str, str] = field(default_factory=dict)
    signatures: int = 0
    checkpoints: int = 0
    signed_events: int = 0
    """How many of the events the newest root covers that the ledger signed."""
    blobs: int = 0
    anchors: int = 0
    decisions: int = 0
    """How many events hold what somebody signed, or name a person; each was verified."""
    root: str = UNANCHORED
    sealed: str | None = None
    spans_checked: int = 0
    spans_total: int = 0
    unchecked: tuple[str, ...] = ()
    divergences: tuple[Divergence, ...] = ()

    @classmethod
    def of_findings(cls, told: AuditFindings) -> Self:
        """The verdict that says this; of several divergences the first alone is known then."""
        names = {one.name for one in fields(cls)} - {"bundle", "unchecked", "divergences"}
        first = told.first_divergence
        found = (Divergence(first.position, first.seq, first.what, first.message),) if first else ()
        about = {name: value for name, value in told if name in names}
        return cls(**about, bundle=told.bundle or "", unchecked=tuple(told.unchecked), divergences=found)

    def findings(self) -> AuditFindings:
        """What an audit of this verdict answers with."""
        return AuditFindings(
            session=self.session,
            mode=self.mode,
            bundle=self.bundle or None,
            verdict=self.verdict,
            events=self.events,
            lanes=len(self.lane_heads),
            lane_heads=self.lane_heads,
            signatures=self.signatures,
            checkpoints=self.checkpoints,
            signed_events=self.signed_events,
            blobs=self.blobs,
            anchors=self.anchors,
            decisions=self.decisions,
            root=self.root,
            sealed=self.sealed,
            spans_checked=self.spans_checked,
            spans_total=self.spans_total,
            unchecked=list(self.unchecked),
            first_divergence=self.divergences[0].found() if self.divergences else None,
            divergences=len(self.divergences),
        )

    def as_json(self) -> dict[str, object]:
        """Plain data, with the keys that programs rely on."""
        return self.findings().model_dump()


RATES = (0.01, 0.05, 0.1, 0.25, 0.5)
"""Shares of bad spans for which the chance of finding one is said."""

UNTRAINED = "nothing was trained in this session, so there is nothing to compute again; its log passes"
FAILS = "nothing was computed again: the log itself fails"


class SpanResult(Value):
    """What came of computing a span again: so many steps, and the first divergence.

    `problem` says why nothing was computed, `differing` what its code gave in place of a result.
    """

    steps: int
    divergence: SpanDivergence | None
    problem: str = ""
    differing: str = ""


@dataclass(frozen=True)
class LocatedDivergence(Divergence):
    """The divergence of a span, in which it is, and by which segment's plan it was computed."""

    about: SpanDivergence
    span: int
    line: int

    def found(self) -> FoundDivergence:
        """The divergence as an audit tells it."""
        about = self.about.model_dump(exclude={"name", "place", "seq"})
        return super().found().model_copy(update=about | {"span": self.span, "line": self.line})


@dataclass(frozen=True)
class ReplayVerdict(Verdict):
    """What an audit found that computed spans again."""

    seed: int | None = None
    detection: dict[str, float] = field(default_factory=dict)
    differing: tuple[str, ...] = ()
    steps_checked: int = 0
    spans_resumed: int = 0
    exports_checked: int = 0
    located: DivergencePlace | None = None

    def findings(self) -> AuditFindings:
        """What an audit of this verdict answers with."""
        computed = {
            "seed": self.seed,
            "detection": self.detection,
            "differing": list(self.differing),
            "steps_checked": self.steps_checked,
            "spans_resumed": self.spans_resumed,
            "exports_checked": self.exports_checked,
            "located": self.located,
        }
        return super().findings().model_copy(update=computed)

    @classmethod
    def of_findings(cls, told: AuditFindings) -> Self:
        """The verdict that says this; of several divergences the first alone is known then."""
        return replace(super().of_findings(told), differing=tuple(told.differing))

    @classmethod
    def of(cls, log: Verdict, *, unchecked: Sequence[str] = (), **changes: Any) -> Self:
        """The verdict on the log with these changes; what it says to be unchecked besides the computation stays so."""
        told = [one for one in log.unchecked if not one.startswith("the computation itself")]
        return cls(**vars(log) | changes | {"unchecked": (*told, *unchecked)})


@dataclass(frozen=True)
class ExportFindings:
    """What came of making exported files again."""

    checked: int = 0
    divergences: tuple[Divergence, ...] = ()
    unchecked: tuple[str, ...] = ()
    differing: tuple[str, ...] = ()
    """Files that something else came of than a file, so that they cannot be compared."""


def replay_verdict(
    log: Verdict,
    plan: AuditPlan,
    results: Mapping[int, SpanResult],
    exports: ExportFindings = ExportFindings(),
    *,
    unchecked: Sequence[str] = (),
    differing: Sequence[str] = (),
    resumed: int = 0,
    located: DivergencePlace | None = None,
) -> ReplayVerdict:
    """The verdict, after that of the mode `log`, which has passed.

    What is wrong comes first. Then nothing passes where the bits cannot be computed, be it for what is `differing` or
    for what code gave in place of a result, nor where nothing of what was to be computed was computed.
    """
    spans = {one.number: one for one in plan.spans}
    wrong = [
        *plan.broken,
        *(_located(spans[at], one.divergence) for at, one in results.items() if one.divergence is not None),
    ]
    wrong = sorted([*wrong, *exports.divergences], key=lambda one: one.position or 1 << 60)
    computed = {at: one for at, one in results.items() if not one.problem}
    differing = [*differing, *(one.differing for one in results.values() if one.differing)]
    differing += exports.differing
    idle = plan.mode != "log" and not computed
    spot = plan.mode == "spot"
    return ReplayVerdict.of(
        log,
        mode=plan.mode,
        spans_total=len(spans),
        verdict="fail" if wrong else "not-comparable" if differing or idle else "pass",
        divergences=tuple(wrong),
        unchecked=(
            *(f"not comparable, because of {one}" for one in differing[:20]),
            *unchecked,
            *exports.unchecked,
            *_unchecked(plan, results, computed),
        ),
        differing=tuple(differing),
        spans_checked=len(computed),
        steps_checked=sum(one.steps for one in computed.values()),
        spans_resumed=resumed,
        exports_checked=exports.checked,
        seed=plan.seed if spot else None,
        detection=detection(len(computed), len(spans)) if spot else {},
        located=located,
    )


def verdict_without_replay(log: Verdict, mode: Mode, why: str) -> ReplayVerdict:
    """The verdict where nothing is computed again, with the reason: never `pass`, even if the log's own verdict is."""
    verdict = "not-comparable" if log.verdict == "pass" and mode != "log" else log.verdict
    return ReplayVerdict.of(log, mode=mode, verdict=verdict, unchecked=(why,))


def detection(drawn: int, total: int) -> dict[str, float]:
    """The least chance of finding a share `f` of bad spans: 1-(1-f)^k; and that of finding a single bad one."""
    if drawn >= total:
        return {f"{rate:g}": 1.0 for rate in RATES} | {"one": 1.0}
    return {f"{rate:g}": round(1 - (1 - rate) ** drawn, 6) for rate in RATES} | {"one": round(drawn / total, 6)}


def sentence(found: SpanDivergence) -> str:
    """A divergence as one sentence: place, field, recorded and computed value."""
    where = f"steps {found.first}..{found.last}" if found.first != found.last else f"step {found.last}"
    if found.field == "end":
        return found.recorded
    if not found.field:
        return f"{where}: recorded {found.recorded}, computed {found.computed}"
    step = f", first at step {found.step}" if found.step >= 0 else ""
    said, came = found.recorded[:80], found.computed[:80]
    return f"{where}: {found.field} is recorded as {said} and computed as {came}{step}"


def _located(span: SpanPlanned, found: SpanDivergence) -> LocatedDivergence:
    """The divergence of a span with its place in the log."""
    return LocatedDivergence(
        found.place, found.seq, found.name, sentence(found), about=found, span=span.number, line=span.segments
    )


def _unchecked(plan: AuditPlan, results: Mapping[int, SpanResult], computed: Mapping[int, SpanResult]) -> Iterator[str]:
    for at, one in results.items():
        if at not in computed:
            yield f"span {at} could not be computed: {one.problem}"
    left = len(plan.spans) - len(results)
    if not plan.spans and plan.mode != "log":
        yield UNTRAINED
    if left:
        yield f"{left} of {count_of(len(plan.spans), 'span')} {'was' if left == 1 else 'were'} not computed again"
    if not plan.ended:
        upto = f"up to step {plan.reached}, event {plan.events}"
        yield f"training has not ended: what was recorded {upto}, was looked at"
