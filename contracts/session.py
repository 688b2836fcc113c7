"""The fold of a session: its state after each of its events. What is still owed at the end is in `contracts.duties`.

Restart, resume, the command line, the page, `show --at` and audits all run `advance`. It is pure: no clock, no
I/O. Windows are counted here and not kept: code that needs them reads the facts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from contracts.checkpoint_keeper import CheckpointCorrupt, CheckpointPruned, CheckpointStored
from contracts.common import HandlerFailed
from contracts.data_manager import DatasetPrepared, DatasetRejected
from contracts.diagnostician import (
    DiagnosisReached,
    InterventionProposed,
    InterventionProven,
    OutcomeJudged,
    ProblemDiagnosed,
    ProofFailed,
    ProofForked,
)
from contracts.envelope import Fact
from contracts.event import GUEST, Event
from contracts.exporter import ExportRefused, ModelExported
from contracts.fork import Fork
from contracts.growing import GrowingSet, GrowingTable, GrowingTuple
from contracts.hyperparameter_specialist import (
    LearningRateSuggested,
    SearchCancelled,
    SearchCompleted,
    SearchFailed,
    TrialFinished,
    TrialStarted,
)
from contracts.ledger import DutyWaived, SessionSealed
from contracts.operator import (
    CancelRequested,
    ExportRequested,
    PauseRequested,
    RedriveRequested,
    ResumeRequested,
    SessionRequested,
)
from contracts.resource_monitor import ResourcesAlerted, ResourcesSummarised
from contracts.trainer import (
    AuditCompleted,
    AuditFailed,
    AuditPlanned,
    BirthAudited,
    CheckpointWritten,
    ControlEvaluated,
    DivergenceFound,
    InterventionApplied,
    InterventionDeclined,
    JudgementWaived,
    SpanRepeated,
    TrainingCancelled,
    TrainingClaimed,
    TrainingCompleted,
    TrainingFailed,
    TrainingPaused,
    TrainingResumed,
    WindowRecorded,
)
from contracts.validator import CheckpointValidated

State = Literal["requested", "preparing", "training", "paused", "finishing", "completed", "failed", "cancelled"]
ENDED: tuple[State, ...] = ("completed", "failed", "cancelled")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint as its events tell it: written, stored, validated, gone; `id` is the event that wrote it."""

    id: str
    written: CheckpointWritten
    stored: CheckpointStored | None = None
    stored_id: str = ""
    validated: CheckpointValidated | None = None
    gone: Literal["", "pruned", "corrupt"] = ""

    @property
    def usable(self) -> bool:
        """Whether its blob should still be there: not pruned and not found corrupt."""
        return not self.gone


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of the session under one plan: it begins after step `begins`, with the changes that began it."""

    number: int
    begins: int
    changes: dict[str, Any] = field(default_factory=dict)
    reproducible: bool = True


def counts(segment: int, step: int, segments: Iterable[Segment]) -> bool:
    """Whether what a segment recorded at a step counts among these: no later one began before it."""
    return all(step <= later.begins for later in segments if later.number > segment)


@dataclass(frozen=True)
class SessionState:
    """A session as of one event. Immutable; `advance` gives the next, quickly, which is why there are no slots."""

    id: str
    genesis: SessionRequested | None = None
    genesis_id: str = ""
    requested_at: str = ""
    updated_at: str = ""
    ended_at: str = ""
    events: int = 0
    last_seq: int = 0
    state: State = "requested"
    dataset: DatasetPrepared | None = None
    dataset_id: str = ""
    claim: TrainingClaimed | None = None
    claim_id: str = ""
    segments: tuple[Segment, ...] = (Segment(1, 0),)
    step: int = 0
    windows: int = 0
    last_window: WindowRecorded | None = None
    last_window_id: str = ""
    evaluations: GrowingTuple[ControlEvaluated] = field(default_factory=GrowingTuple)
    checkpoints: GrowingTable[str, Checkpoint] = field(default_factory=GrowingTable)
    """By the events that wrote them, in their order."""
    written_at: GrowingTable[tuple[int, int], tuple[str, ...]] = field(default_factory=GrowingTable)
    """By segment and step, which checkpoints were written there."""
    diagnoses: tuple[tuple[str, ProblemDiagnosed], ...] = ()
    proposals: tuple[tuple[str, InterventionProposed], ...] = ()
    applied: tuple[tuple[str, InterventionApplied], ...] = ()
    declined: frozenset[str] = frozenset()
    judged: frozenset[str] = frozenset()
    to_prove: tuple[str, ...] = ()
    """Judgements that ask for a proof."""
    proof: ProofForked | None = None
    diagnosed: DiagnosisReached | None = None
    waived_judgement: bool = False
    exports: tuple[tuple[str, ModelExported], ...] = ()
    refusals: tuple[ExportRefused, ...] = ()
    export_wishes: tuple[tuple[str, ExportRequested], ...] = ()
    trials: tuple[TrialStarted, ...] = ()
    finished_trials: tuple[TrialFinished, ...] = ()
    suggested: LearningRateSuggested | None = None
    search: SearchCompleted | None = None
    planned: AuditPlanned | None = None
    resources: ResourcesSummarised | None = None
    alerts: tuple[ResourcesAlerted, ...] = ()
    wishes: tuple[tuple[str, Event], ...] = ()
    pause: TrainingPaused | None = None
    incidents: tuple[DivergenceFound, ...] = ()
    births: tuple[BirthAudited, ...] = ()
    failures: GrowingTable[str, HandlerFailed] = field(default_factory=GrowingTable)
    """By their events, the failures of roles; guests owe nothing, so theirs are not remembered."""
    outcome: Event | None = None
    outcome_id: str = ""
    waived: frozenset[str] = frozenset()
    answered: GrowingSet = field(default_factory=GrowingSet)
    sealed: SessionSealed | None = None

    @property
    def kind(self) -> str:
        """The kind of session that the genesis names: training, trial, search, export, audit, proof."""
        return self.genesis.kind if self.genesis else "training"

    @property
    def request(self) -> dict[str, Any]:
        """The request as the genesis holds it, with every default filled in; empty before the genesis."""
        return self.genesis.request if self.genesis else {}

    @property
    def fork(self) -> Fork | None:
        """In whose bits it began, when it is a fork."""
        return self.genesis.fork if self.genesis else None

    @property
    def begins(self) -> int:
        """The step at which its own training begins."""
        return self.segments[0].begins

    def changes(self, segments: int | None = None) -> list[dict[str, Any]]:
        """The decisions of its first so many segments, each with its step, behind those that a fork inherits."""
        inherited = self.fork.changes if self.fork else []
        return [*inherited, *({"step": segment.begins, **segment.changes} for segment in self.segments[1:segments])]

    @property
    def segment(self) -> Segment:
        """The newest segment, under whose plan training continues."""
        return self.segments[-1]

    @property
    def best(self) -> ControlEvaluated | None:
        """The newest evaluation on the path that improved the control metric; None before the first."""
        return next((seen for seen in reversed(self.evaluations) if seen.improved), None)

    @property
    def total_steps(self) -> int | None:
        """The number of steps of the plan, or of an audit's chosen spans; None before they are known."""
        if self.planned:
            chosen = set(self.planned.chosen)
            return sum(span.ends - span.begins for span in self.planned.spans if span.number in chosen)
        return self.claim.resolved.get("steps_total") if self.claim else None

    @property
    def weights_digest(self) -> str | None:
        """The digest of the final weights, or of the last window's."""
        if isinstance(self.outcome, TrainingCompleted):
            return self.outcome.weights_digest
        return self.last_window.weights_digest if self.last_window else None

    def on_path(self, segment: int, step: int) -> bool:
        """Whether what a segment recorded at a step still counts: no later segment began before it."""
        return counts(segment, step, self.segments)

    def path_checkpoints(self) -> tuple[Checkpoint, ...]:
        """The checkpoints on the path, usable or not, in the order of their steps."""
        mine = [kept for kept in self.checkpoints if self.on_path(kept.written.segment, kept.written.step)]
        return tuple(sorted(mine, key=lambda kept: kept.written.step))

    def checkpoint(self, which: str | int) -> Checkpoint | None:
        """The usable checkpoint called best, last or final, or that of a step."""
        usable = [kept for kept in self.path_checkpoints() if kept.usable]
        if which in ("last", "final"):
            return usable[-1] if usable else None
        wanted = (self.best.step if self.best else -1) if which == "best" else int(which)
        return next((kept for kept in reversed(usable) if kept.written.step == wanted), None)

    def answers(self, role: str, cause: str) -> bool:
        """Whether a role has said anything that was caused by this event."""
        return f"{role}:{cause}" in self.answered

    def open_proposals(self) -> tuple[tuple[str, InterventionProposed], ...]:
        """Interventions that were proposed and neither applied nor declined yet, with the ids of their events."""
        closed = {seen.proposal for _, seen in self.applied} | self.declined
        return tuple((id, seen) for id, seen in self.proposals if id not in closed)


def advance(session: SessionState, fact: Fact) -> SessionState:
    """The session after one more admitted event; the given one stays as it is. Unknown events only count."""
    envelope = fact.envelope
    # As dataclasses.replace, which would call the constructor with every field: ten times slower, once per event.
    following = object.__new__(SessionState)
    state = following.__dict__
    state |= session.__dict__
    state["events"] = session.events + 1
    state["last_seq"] = fact.seq
    if not session.requested_at:
        state["requested_at"] = envelope.time
    # A guest's time is any text that fits. Guests owe nothing here, and say as much as they like: what is remembered of
    # them must not grow with it.
    if not envelope.lane.startswith(GUEST):
        state["updated_at"] = envelope.time
        if envelope.causationid:
            state["answered"] = session.answered.marked(f"{envelope.lane}:{envelope.causationid}")
    fold = _FOLDS.get(type(fact.event))
    if fold:
        state |= fold(session, fact.event, fact)
    return following


Changes = dict[str, Any]
_OfCheckpoint = CheckpointStored | CheckpointPruned | CheckpointCorrupt | CheckpointValidated
Fold = Callable[[SessionState, Any, Fact], Changes]
"""Takes the session, the event and its fact, and returns the fields of the session that it changes."""


def _requested(session: SessionState, event: SessionRequested, fact: Fact) -> Changes:
    state: State = "preparing" if event.kind in ("training", "trial") else "training"
    begun: Changes = {}
    if event.fork:
        begun = dict(segments=(Segment(event.fork.segment, event.fork.step),), step=event.fork.step)
    return dict(genesis=event, genesis_id=fact.id, state=state) | begun


def _windowed(session: SessionState, event: WindowRecorded, fact: Fact) -> Changes:
    if event.segment != session.segments[-1].number:
        return {}
    return dict(windows=session.windows + 1, step=event.last, last_window=event, last_window_id=fact.id)


def _written(session: SessionState, event: CheckpointWritten, fact: Fact) -> Changes:
    here = event.segment, event.step
    there = (*(session.written_at.get(here) or ()), fact.id)
    checkpoints = session.checkpoints.having(fact.id, Checkpoint(fact.id, event))
    return dict(checkpoints=checkpoints, written_at=session.written_at.having(here, there))


def _with_checkpoint(session: SessionState, event: _OfCheckpoint, **changes: Any) -> Changes:
    """What becomes of the checkpoints that were written at the step of an event about one."""
    checkpoints = session.checkpoints
    for id in session.written_at.get((event.segment, event.step)) or ():
        if kept := checkpoints.get(id):
            checkpoints = checkpoints.having(id, replace(kept, **changes))
    return dict(checkpoints=checkpoints)


def _applied(session: SessionState, event: InterventionApplied, fact: Fact) -> Changes:
    segments = session.segments
    if event.segment != session.segment.number:
        segments = (*segments, Segment(event.segment, event.step, event.changes, event.reproducible))
    moved = replace(session, segments=segments)
    path = GrowingTuple([seen for seen in session.evaluations if moved.on_path(seen.segment, seen.step)])
    applied = (*session.applied, (fact.id, event))
    return dict(applied=applied, segments=segments, step=event.step, evaluations=path)


def _judged(session: SessionState, event: OutcomeJudged, fact: Fact) -> Changes:
    to_prove = (*session.to_prove, fact.id) if event.prove else session.to_prove
    return dict(judged=session.judged | {event.proposal}, to_prove=to_prove)


def _without(session: SessionState, kind: type[Event]) -> tuple[tuple[str, Event], ...]:
    return tuple((id, wish) for id, wish in session.wishes if not isinstance(wish, kind))


def _wished(session: SessionState, event: Event, fact: Fact) -> Changes:
    return dict(wishes=(*session.wishes, (fact.id, event)))


def _ended(session: SessionState, event: Event, fact: Fact) -> Changes:
    if session.outcome is not None:
        return {}
    return dict(outcome=event, outcome_id=fact.id, state="finishing")


def _exported(session: SessionState, event: ModelExported, fact: Fact) -> Changes:
    ends = _ended(session, event, fact) if session.kind == "export" else {}
    return ends | dict(exports=(*session.exports, (fact.id, event)))


def _refused(session: SessionState, event: ExportRefused, fact: Fact) -> Changes:
    ends = _ended(session, event, fact) if session.kind == "export" else {}
    return ends | dict(refusals=(*session.refusals, event))


def _handler_failed(session: SessionState, event: HandlerFailed, fact: Fact) -> Changes:
    if fact.lane.startswith(GUEST):
        return {}
    # The event that the role must answer, because the session cannot go on without it.
    if session.kind in _CARRIERS:
        needed = session.genesis_id if event.role == _CARRIERS[session.kind] else None
    else:
        needed = {"data_manager": session.genesis_id, "trainer": session.dataset_id}.get(event.role)
    ends = _ended(session, event, fact) if event.heard == needed else {}
    return ends | dict(failures=session.failures.having(fact.id, event))


_CARRIERS = {
    "search": "hyperparameter_specialist",
    "export": "exporter",
    "proof": "diagnostician",
    "audit": "trainer",
}
"""By kind of session: the one role that carries it; a training has two, one after the other."""


def _redriven(session: SessionState, event: RedriveRequested, fact: Fact) -> Changes:
    seen = session.failures.get(event.failure)
    if seen is None:
        return {}
    answered = session.answered - {f"{seen.role}:{seen.heard}"}
    return dict(failures=session.failures.without(event.failure), answered=answered)


def _sealed(session: SessionState, event: SessionSealed, fact: Fact) -> Changes:
    outcome, state = session.outcome, "failed"
    if isinstance(outcome, TrainingCompleted | SearchCompleted | ModelExported | InterventionProven | AuditCompleted):
        state = "completed"
    elif isinstance(outcome, TrainingCancelled | SearchCancelled):
        state = "cancelled"
    elif isinstance(outcome, ProofFailed | AuditFailed):
        state = "cancelled" if any(isinstance(wish, CancelRequested) for _, wish in session.wishes) else "failed"
    elif isinstance(outcome, SearchFailed) and outcome.message.startswith("cancelled: "):
        state = "cancelled"  # so a cancelled search was told before there was an event for it
    return dict(sealed=event, state=state, ended_at=fact.envelope.time)


_FOLDS: dict[type[Event], Fold] = {
    SessionRequested: _requested,
    CancelRequested: _wished,
    PauseRequested: _wished,
    ResumeRequested: _wished,
    ExportRequested: lambda s, e, f: dict(export_wishes=(*s.export_wishes, (f.id, e))),
    RedriveRequested: _redriven,
    DatasetPrepared: lambda s, e, f: dict(dataset=e, dataset_id=f.id),
    DatasetRejected: _ended,
    TrainingClaimed: lambda s, e, f: dict(claim=e, claim_id=f.id, state="training", pause=None),
    WindowRecorded: _windowed,
    ControlEvaluated: lambda s, e, f: dict(evaluations=s.evaluations.grown(e)),
    CheckpointWritten: _written,
    CheckpointStored: lambda s, e, f: _with_checkpoint(s, e, stored=e, stored_id=f.id),
    CheckpointPruned: lambda s, e, f: _with_checkpoint(s, e, gone="pruned"),
    CheckpointCorrupt: lambda s, e, f: _with_checkpoint(s, e, gone="corrupt"),
    CheckpointValidated: lambda s, e, f: _with_checkpoint(s, e, validated=e),
    ProblemDiagnosed: lambda s, e, f: dict(diagnoses=(*s.diagnoses, (f.id, e))),
    InterventionProposed: lambda s, e, f: dict(proposals=(*s.proposals, (f.id, e))),
    InterventionApplied: _applied,
    InterventionDeclined: lambda s, e, f: dict(declined=s.declined | {e.proposal}),
    DiagnosisReached: lambda s, e, f: dict(diagnosed=e),
    JudgementWaived: lambda s, e, f: dict(waived_judgement=True),
    OutcomeJudged: _judged,
    ProofForked: lambda s, e, f: dict(proof=e),
    InterventionProven: _ended,
    ProofFailed: _ended,
    DivergenceFound: lambda s, e, f: dict(incidents=(*s.incidents, e)),
    BirthAudited: lambda s, e, f: dict(births=(*s.births, e)),
    TrainingPaused: lambda s, e, f: dict(state="paused", pause=e, wishes=_without(s, PauseRequested)),
    TrainingResumed: lambda s, e, f: dict(state="training", pause=None, wishes=_without(s, ResumeRequested)),
    TrainingCompleted: _ended,
    TrainingFailed: _ended,
    TrainingCancelled: _ended,
    ModelExported: _exported,
    ExportRefused: _refused,
    LearningRateSuggested: lambda s, e, f: dict(suggested=e),
    TrialStarted: lambda s, e, f: dict(trials=(*s.trials, e)),
    TrialFinished: lambda s, e, f: dict(finished_trials=(*s.finished_trials, e)),
    SearchCompleted: lambda s, e, f: _ended(s, e, f) | dict(search=e),
    SearchCancelled: _ended,
    SearchFailed: _ended,
    AuditPlanned: lambda s, e, f: dict(planned=s.planned or e),
    SpanRepeated: lambda s, e, f: dict(step=s.step + e.steps),
    AuditCompleted: _ended,
    AuditFailed: _ended,
    ResourcesSummarised: lambda s, e, f: dict(resources=e),
    ResourcesAlerted: lambda s, e, f: dict(alerts=(*s.alerts, e)),
    HandlerFailed: _handler_failed,
    DutyWaived: lambda s, e, f: dict(waived=s.waived | {e.duty}),
    SessionSealed: _sealed,
}


Session = SessionState
"""The name under which guests and readers of logs have imported it."""
