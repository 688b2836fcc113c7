"""The spans of a session: what lies between kept checkpoints, and what each must reproduce. Pure; nothing is computed.

A *line* is a path from step 0 under the plan that was in force: the last one, and one for everything that a rewind
superseded. Lines share their beginnings, so each is cut only where it holds records that no earlier line holds.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from contracts import trainer
from contracts.envelope import Fact
from contracts.event import Exact, Value
from contracts.session import Checkpoint, Segment, SessionState, counts


@dataclass(frozen=True)
class SpanRecord:
    """One thing that a re-execution must give again, and where the log says it."""

    event: trainer.Computed
    position: int
    seq: int
    version: int
    """How many segments there were when it was said."""

    @property
    def first(self) -> int:
        """The step after which it must be computed."""
        return self.event.first if isinstance(self.event, trainer.WindowRecorded) else self.event.step - 1

    @property
    def last(self) -> int:
        """The step at which it is computed."""
        return trainer.computed_at(self.event)


@dataclass(frozen=True)
class RecordedEnd:
    """What a session says of its completion, and where the log says it."""

    event: trainer.TrainingCompleted
    position: int
    seq: int


@dataclass(frozen=True)
class RecordedBisection:
    """Rows that were named of a window, where the log says so, and how many segments the plan had then."""

    event: trainer.AttemptBisected
    position: int
    seq: int
    segments: int


class SpanStart(Value):
    """The state in which a span begins: the blob of its checkpoint, and the root that it must have."""

    blob: str
    state_root: str


class RowQuestion(Value):
    """Which rows the window up to `last` cannot bear, by the plan with so many of its changes."""

    last: int
    changes: int


class SpanTask(Value):
    """What a process is given to compute a span again; what came out at the time is not among it.

    `plan` has the form of `runtime.engine.plan.Plan.from_json`. `kept` are the steps at which state is wanted, `closes`
    is whether the session says that training ended there. `questions` are asked of the state in which the span begins.
    """

    plan: dict[str, object]
    begins: int
    ends: int
    start: SpanStart | None
    evaluations: tuple[tuple[int, Exact], ...]
    kept: tuple[int, ...]
    closes: bool
    questions: tuple[RowQuestion, ...] = ()


class SpanSpec(Value):
    """Everything that a result of a span depends on besides data, code and machine; its members are those of `Span`."""

    plan: dict[str, object]
    segments: int
    begins: int
    ends: int
    start: SpanStart | None
    records: tuple[SpanRecord, ...]
    evaluations: tuple[tuple[int, Exact], ...]
    """Those that a fork inherits included."""
    outcome: RecordedEnd | None
    after: tuple[int, int]
    whole: bool
    bisections: tuple[RecordedBisection, ...] = ()

    @property
    def task(self) -> SpanTask:
        """What of it a process is given that computes the span again."""
        changes = self.plan["changes"]
        known = len(changes) if isinstance(changes, list) else 0
        return SpanTask(
            plan=self.plan,
            begins=self.begins,
            ends=self.ends,
            start=self.start,
            evaluations=self.evaluations,
            kept=tuple(sorted({one.last for one in self.records if isinstance(one.event, trainer.CheckpointWritten)})),
            closes=self.outcome is not None,
            questions=tuple(
                RowQuestion(last=one.event.last, changes=known - self.segments + one.segments)
                for one in self.bisections
            ),
        )


@dataclass(frozen=True)
class Span:
    """The steps after `begins` up to `ends` of one line, and everything that was recorded of them."""

    number: int
    segments: int
    begins: int
    ends: int
    start: Checkpoint | None
    """The checkpoint to begin from; None for a beginning from the request."""
    records: tuple[SpanRecord, ...]
    evaluations: tuple[tuple[int, float], ...]
    """The control metric on the line up to `begins`, on which best and patience depend there."""
    outcome: RecordedEnd | None
    """What the session says of its completion, when the span holds it."""
    after: tuple[int, int]
    """Place and sequence of the first record behind the span, or of the session's completion; zeros without one."""
    whole: bool
    """Whether the line was carried out to its end: then nothing that the engine wants may be missing."""
    bisections: tuple[RecordedBisection, ...] = ()

    @property
    def name(self) -> str:
        """How sentences call the span: its number and its steps."""
        return f"span {self.number} (steps {self.begins}..{self.ends}, segment {self.segments})"

    def spec(self, plan: dict[str, object], inherited: Sequence[tuple[int, float]]) -> SpanSpec:
        """The span with its plan, and with the evaluations that a fork inherits before its own."""
        start = self.start.written if self.start else None
        return SpanSpec(
            plan=plan,
            segments=self.segments,
            begins=self.begins,
            ends=self.ends,
            start=SpanStart(blob=start.blob, state_root=start.state_root) if start else None,
            records=self.records,
            evaluations=(*inherited, *self.evaluations),
            outcome=self.outcome,
            after=self.after,
            whole=self.whole,
            bisections=self.bisections,
        )


@dataclass(frozen=True)
class SessionSpans:
    """A session's spans in order, and records that belong to no line: nothing could have computed them."""

    spans: tuple[Span, ...]
    strays: tuple[SpanRecord, ...]


def session_spans(facts: Iterable[Fact], session: SessionState, has: Callable[[str], bool]) -> SessionSpans:
    """Every span of a session; one that would begin at a blob that is gone begins earlier."""
    facts = list(facts)
    records, completed = _records(facts, session.training.segments[0].number), None
    if isinstance(session.outcome, trainer.TrainingCompleted):
        fact = next(fact for fact in facts if fact.id == session.outcome_id)
        completed = RecordedEnd(session.outcome, fact.position, fact.seq)
    # The state in which a fork begins was given to it: it follows from its parent's log.
    origin = session.training.begins if session.fork else -1
    given = [one for one in records if isinstance(one.event, trainer.CheckpointWritten) and one.last == origin]
    records = [one for one in records if one not in given]
    lines = _lines(records, session.training.segments)
    named = [
        RecordedBisection(
            fact.event, fact.position, fact.seq, 1 + fact.event.segment - session.training.segments[0].number
        )
        for fact in facts
        if isinstance(fact.event, trainer.AttemptBisected) and not fact.event.problem
    ]
    cuts = [one for one in session.training.checkpoints if one.usable and has(one.written.blob)]
    spans: list[Span] = []
    seen, after = {one.position for one in given}, 0
    for version in lines:
        line = [one for one in records if one.version <= version and _on(one, session.training.segments[:version])]
        fresh = [one for one in line if one.version > after]
        seen |= {one.position for one in fresh}
        whole = version == lines[-1] and completed is not None
        drawn = _PlanPath(
            version, line, fresh, _places(cuts, session.training.segments[:version]), whole, origin, named
        )
        spans += _cut(drawn, len(spans) + 1, completed)
        after = version
    return SessionSpans(tuple(spans), tuple(one for one in records if one.position not in seen))


def nearest_span(
    spans: Sequence[Span], step: int, segments: Sequence[Segment], segment: int | None = None
) -> Span | None:
    """The span in which a step lies: on the last line, or on the first that holds the line of a segment up to there."""
    upto = len(segments) if segment is None else 1 + segment - segments[0].number
    found = [one for one in spans if one.begins <= step <= one.ends]
    if segment is None:
        last = max((one.segments for one in spans), default=0)
        return max(found, key=lambda one: (one.segments == last, one.segments, one.begins), default=None)
    lines = [
        one
        for one in found
        if one.segments >= upto and all(step <= later.begins for later in segments[upto : one.segments])
    ]
    return min(lines, key=lambda one: (one.segments, -one.begins), default=None)


def claims(facts: Iterable[Fact]) -> list[tuple[Fact, trainer.TrainingClaimed]]:
    """Every claim of the session, with its place, in the order of the log."""
    return [(fact, fact.event) for fact in facts if isinstance(fact.event, trainer.TrainingClaimed)]


def _records(facts: Iterable[Fact], number: int) -> list[SpanRecord]:
    found, version = [], 1
    for fact in facts:
        event = fact.event
        if isinstance(event, trainer.InterventionApplied) and event.segment != number:
            version, number = version + 1, event.segment
        elif isinstance(event, trainer.Computed):
            found.append(SpanRecord(event, fact.position, fact.seq, version))
    return found


def _on(record: SpanRecord, segments: Sequence[Segment]) -> bool:
    return counts(record.event.segment, record.last, segments)


def _lines(records: Sequence[SpanRecord], segments: Sequence[Segment]) -> list[int]:
    """The versions whose line is no beginning of the next one's."""
    found = []
    for at in range(1, len(segments)):
        reached = max((one.last for one in records if one.version <= at and _on(one, segments[:at])), default=0)
        if segments[at].begins < reached:
            found.append(at)
    return [*found, len(segments)]


def _places(cuts: Iterable[Checkpoint], segments: Sequence[Segment]) -> list[Checkpoint]:
    """Where a line can be cut, by step; one checkpoint for each."""
    mine = {
        one.written.step: one
        for one in cuts
        if one.written.segment <= segments[-1].number and counts(one.written.segment, one.written.step, segments)
    }
    return [mine[step] for step in sorted(mine)]


class _PlanPath(NamedTuple):
    """Records that follow from each other, up to one version."""

    version: int
    records: Sequence[SpanRecord]
    fresh: Sequence[SpanRecord]
    """Those that lie on no line before."""
    places: Sequence[Checkpoint]
    """Where it can be cut."""
    whole: bool
    origin: int
    """Where a fork begins; -1 for a session that begins with its request."""
    named: Sequence[RecordedBisection]
    """All rows that were named in the session."""


def _cut(line: _PlanPath, number: int, completed: RecordedEnd | None) -> list[Span]:
    """Spans that hold everything fresh on a line."""
    if not line.fresh:
        return []
    need, end = max(min(one.first for one in line.fresh), line.origin), max(one.last for one in line.fresh)
    before = [one for one in line.places if one.written.step <= need]
    starts: list[Checkpoint | None] = [before[-1] if before else None]
    first = starts[0].written.step if starts[0] else -1
    starts += [one for one in line.places if max(first, 0) < one.written.step < end]
    steps = [one.written.step if one else max(line.origin, 0) for one in starts]
    fresh = {
        (one.event.segment, one.event.first) for one in line.fresh if isinstance(one.event, trainer.WindowRecorded)
    }
    named = [one for one in line.named if (one.event.segment, one.event.first) in fresh]
    made = []
    for at, (start, begins, ends) in enumerate(zip(starts, steps, [*steps[1:], end], strict=True)):
        after = begins if start else -1
        inside = tuple(one for one in line.records if after < one.last <= ends)
        seen = [
            one.event for one in line.records if isinstance(one.event, trainer.ControlEvaluated) and one.last <= begins
        ]
        values = {one.step: one.values.get(one.metric, float("nan")) for one in seen}
        closing = completed if line.whole and at == len(starts) - 1 else None
        known = tuple(sorted(values.items()))
        later = (one for one in line.records if one.last > ends)
        behind: SpanRecord | RecordedEnd | None = min(later, key=lambda one: one.position, default=completed)
        place = (behind.position, behind.seq) if behind else (0, 0)
        asked = tuple(one for one in named if begins <= one.event.first and one.event.last <= ends)
        made.append(
            Span(number + at, line.version, begins, ends, start, inside, known, closing, place, line.whole, asked)
        )
    return made
