"""The state of a session in which a model is trained, and the two kinds that train: a training, and a search's trial.

Windows are counted here and not kept: code that needs them reads the facts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, Self

from contracts.checkpoint_keeper import CheckpointCorrupt, CheckpointPruned, CheckpointStored
from contracts.data_manager import DatasetPrepared, DatasetRejected
from contracts.diagnostician import (
    AdvisorAnswered,
    AdvisorAsked,
    DiagnosisReached,
    InterventionProposed,
    OutcomeJudged,
    ProblemDiagnosed,
)
from contracts.envelope import Fact
from contracts.exporter import ExportingState, ExportRefused, ModelExported
from contracts.fork import Fork
from contracts.growing import GrowingTable, GrowingTuple
from contracts.kind import Carrier, Duty, Kind, having
from contracts.operator import (
    CancelRequested,
    ExportRequested,
    PauseRequested,
    ProposalApproved,
    ProposalRejected,
    ResumeRequested,
    SessionRequested,
)
from contracts.resource_monitor import (
    AdviceJudged,
    ResourcesAdvised,
    ResourcesAlerted,
    ResourcesMeasured,
    ResourcesSummarised,
)
from contracts.roles import (
    CHECKPOINT_KEEPER,
    DATA_MANAGER,
    DIAGNOSTICIAN,
    EXPORTER,
    RESOURCE_MONITOR,
    TRAINER,
    VALIDATOR,
)
from contracts.trainer import (
    SPENT,
    AttemptBisected,
    BirthAudited,
    CheckpointWritten,
    ControlEvaluated,
    DivergenceFound,
    InterventionApplied,
    InterventionDeclined,
    JudgementWaived,
    MemoryExhausted,
    TrainingCancelled,
    TrainingClaimed,
    TrainingCompleted,
    TrainingFailed,
    TrainingPaused,
    TrainingProfiled,
    TrainingResumed,
    WindowRecorded,
)
from contracts.validator import CheckpointValidated

if TYPE_CHECKING:
    from contracts.session import SessionState


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
    changes: Mapping[str, object] = field(default_factory=dict)
    reproducible: bool = True


def counts(segment: int, step: int, segments: Iterable[Segment]) -> bool:
    """Whether what a segment recorded at a step counts among these: no later one began before it."""
    return all(step <= later.begins for later in segments if later.number > segment)


@dataclass(frozen=True)
class TrainingState(ExportingState):
    """A training as of one event; `step` is that of its newest window, or of the intervention that rewound it."""

    fork: Fork | None = None
    dataset: DatasetPrepared | None = None
    claim: TrainingClaimed | None = None
    segments: tuple[Segment, ...] = (Segment(1, 0),)
    windows: int = 0
    last_window: WindowRecorded | None = None
    unsound: WindowRecorded | None = None
    """The first window of the newest segment that is not finite."""
    bisected: Mapping[int, AttemptBisected] = field(default_factory=dict)
    """By segment, which rows made its first unsound window so."""
    exhausted: tuple[str, MemoryExhausted] | None = None
    """That the newest segment ran out of memory, until another begins."""
    evaluations: GrowingTuple[ControlEvaluated] = field(default_factory=GrowingTuple)
    checkpoints: GrowingTable[str, Checkpoint] = field(default_factory=GrowingTable)
    """By the events that wrote them, in their order."""
    written_at: GrowingTable[tuple[int, int], tuple[str, ...]] = field(default_factory=GrowingTable)
    """By segment and step, which checkpoints were written there."""
    diagnoses: tuple[tuple[str, ProblemDiagnosed], ...] = ()
    proposals: tuple[tuple[str, InterventionProposed], ...] = ()
    applied: tuple[tuple[str, InterventionApplied], ...] = ()
    declined: frozenset[str] = frozenset()
    decided: Mapping[str, ProposalApproved | ProposalRejected] = field(default_factory=dict)
    """By proposal, what a person said of it first."""
    judged: frozenset[str] = frozenset()
    to_prove: tuple[str, ...] = ()
    """Judgements that ask for a proof."""
    questions: Mapping[str, AdvisorAsked] = field(default_factory=dict)
    """What the advisor was asked, by the events that tell it, in their order."""
    answers: Mapping[str, AdvisorAnswered] = field(default_factory=dict)
    """By question, what came of it first."""
    advised: Mapping[str, str] = field(default_factory=dict)
    """By proposal that the advisor chose, the question."""
    diagnosed: DiagnosisReached | None = None
    waived_judgement: bool = False
    resources: ResourcesSummarised | None = None
    alerts: tuple[ResourcesAlerted, ...] = ()
    measured: GrowingTuple[ResourcesMeasured] = field(default_factory=GrowingTuple)
    profile: TrainingProfiled | None = None
    advice: tuple[ResourcesAdvised, ...] = ()
    advice_taken: tuple[AdviceJudged, ...] = ()
    pause: TrainingPaused | None = None
    paused_by_plan: int = 0
    """The last step at which its plan paused it; 0 before the first."""
    incidents: tuple[DivergenceFound, ...] = ()
    births: tuple[BirthAudited, ...] = ()

    @classmethod
    def begun(cls, genesis: SessionRequested) -> Self:
        """A fork begins in its parent's segment, at the step of the fork."""
        fork = genesis.fork
        return cls(step=fork.step, fork=fork, segments=(Segment(fork.segment, fork.step),)) if fork else cls()

    @property
    def begins(self) -> int:
        """The step at which its own training begins."""
        return self.segments[0].begins

    def changes(self, segments: int | None = None) -> list[dict[str, object]]:
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
        """The number of steps of the plan; None before it is resolved."""
        return self.claim.resolved.get("steps_total") if self.claim else None

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

    def open_proposals(self) -> tuple[tuple[str, InterventionProposed], ...]:
        """Interventions that were proposed and neither applied nor declined yet, with the ids of their events."""
        closed = {seen.proposal for _, seen in self.applied} | self.declined
        closed |= {id for id, said in self.decided.items() if isinstance(said, ProposalApproved) and said.session}
        return tuple((id, seen) for id, seen in self.proposals if id not in closed)

    def waiting_proposals(self) -> tuple[tuple[str, InterventionProposed], ...]:
        """The open ones about which a person has to decide and has not."""
        return tuple((id, seen) for id, seen in self.open_proposals() if seen.waits and id not in self.decided)


_new, _set = object.__new__, object.__setattr__
_OfCheckpoint = CheckpointStored | CheckpointPruned | CheckpointCorrupt | CheckpointValidated


def _windowed(training: TrainingState, event: WindowRecorded, fact: Fact) -> TrainingState:
    if event.segment != training.segments[-1].number:
        return training
    # As `having`, whose call is dearer: most events of a training are windows.
    following, state = _new(TrainingState), training.__dict__.copy()
    _set(following, "__dict__", state)
    state["windows"] += 1
    state["step"] = event.last
    state["last_window"] = event
    if not event.finite and state["unsound"] is None:
        state["unsound"] = event
    return following


def _written(training: TrainingState, event: CheckpointWritten, fact: Fact) -> TrainingState:
    here = event.segment, event.step
    there = (*(training.written_at.get(here) or ()), fact.id)
    checkpoints = training.checkpoints.having(fact.id, Checkpoint(fact.id, event))
    return having(training, checkpoints=checkpoints, written_at=training.written_at.having(here, there))


def _with_checkpoint(training: TrainingState, event: _OfCheckpoint, **changes: Any) -> TrainingState:
    """What becomes of the checkpoints that were written at the step of an event about one."""
    checkpoints = training.checkpoints
    for id in training.written_at.get((event.segment, event.step)) or ():
        if kept := checkpoints.get(id):
            checkpoints = checkpoints.having(id, replace(kept, **changes))
    return having(training, checkpoints=checkpoints)


def _applied(training: TrainingState, event: InterventionApplied, fact: Fact) -> TrainingState:
    segments = training.segments
    if event.segment != training.segment.number:
        segments = (*segments, Segment(event.segment, event.step, event.changes, event.reproducible))
    path = GrowingTuple([seen for seen in training.evaluations if counts(seen.segment, seen.step, segments)])
    applied = (*training.applied, (fact.id, event))
    begun = having(training, applied=applied, segments=segments, step=event.step, evaluations=path)
    return having(begun, unsound=None, exhausted=None)


def _decided(training: TrainingState, event: ProposalApproved | ProposalRejected, fact: Fact) -> TrainingState:
    return having(training, decided={event.proposal: event, **training.decided})


def _judged(training: TrainingState, event: OutcomeJudged, fact: Fact) -> TrainingState:
    to_prove = (*training.to_prove, fact.id) if event.prove else training.to_prove
    return having(training, judged=training.judged | {event.proposal}, to_prove=to_prove)


def _proposed(training: TrainingState, event: InterventionProposed, fact: Fact) -> TrainingState:
    cause, proposals = fact.envelope.causationid, (*training.proposals, (fact.id, event))
    if cause in training.questions:
        return having(training, proposals=proposals, advised={**training.advised, fact.id: cause})
    return having(training, proposals=proposals)


def _owed(session: SessionState) -> Iterator[Duty]:
    """Every checkpoint stored, the best and the last of a completed training judged, every repair judged and proven
    where its judgement asks for it, what came of every question to the advisor, every export answered, and what the
    session used summed up."""
    training = session.training
    for kept in training.checkpoints:
        if kept.stored is None and not kept.gone:
            yield Duty(CHECKPOINT_KEEPER, "store", kept.id)
    if isinstance(session.outcome, TrainingCompleted):
        named = {seen.id: seen for name in ("best", "last") if (seen := training.checkpoint(name))}
        for seen in named.values():
            if seen.stored and not seen.validated and not session.answers(VALIDATOR, seen.stored_id):
                yield Duty(VALIDATOR, "validate", seen.stored_id)
    yield from (
        Duty(DIAGNOSTICIAN, "judge", id)
        for id, seen in training.applied
        if id not in training.judged and seen.by != SPENT
    )
    yield from (Duty(DIAGNOSTICIAN, "answer", id) for id in training.questions if id not in training.answers)
    for id in training.to_prove:
        if not session.answers(DIAGNOSTICIAN, id):
            yield Duty(DIAGNOSTICIAN, "prove", id)
    for form, quantize, _, cause in wanted_exports(session):
        yield Duty(EXPORTER, f"export.{form}.{quantize or 'plain'}", cause)
    if not session.answers(RESOURCE_MONITOR, session.outcome_id):
        yield Duty(RESOURCE_MONITOR, "summarise", session.outcome_id)


def wanted_exports(session: SessionState) -> list[tuple[str, str, str, str]]:
    """Every export asked for and not answered, as (format, quantize, checkpoint, cause)."""
    if not isinstance(session.outcome, TrainingCompleted):
        return []
    asked = session.request.get("export") or {}
    wanted = [
        (form, quantize, asked.get("checkpoint", "best"), session.outcome_id)
        for form in asked.get("formats", ())
        for quantize in ("", *(asked.get("quantize", ()) if form == "onnx" else ()))
    ]
    wanted += [(wish.format, wish.quantize, wish.checkpoint, id) for id, wish in session.export_wishes]
    done = {(said.format, said.quantize, said.checkpoint) for _, said in session.training.exports}
    done |= {(said.format, said.quantize, said.checkpoint) for said in session.training.refusals}
    return [export for export in wanted if export[:3] not in done]


TRAINING = Kind(
    "training",
    TrainingState,
    carriers=(Carrier(DATA_MANAGER), Carrier(TRAINER, answers=DatasetPrepared)),
    begins="preparing",
    moves={TrainingClaimed: "training", TrainingPaused: "paused", TrainingResumed: "training"},
    ends={
        DatasetRejected: "failed",
        TrainingCompleted: "completed",
        TrainingFailed: "failed",
        TrainingCancelled: "cancelled",
    },
    heeds=(CancelRequested, PauseRequested, ResumeRequested, ExportRequested, ProposalApproved, ProposalRejected),
    obeys={TrainingPaused: PauseRequested, TrainingResumed: ResumeRequested},
    owes=_owed,
    trains=True,
    reported=True,
    folds={
        DatasetPrepared: lambda s, e, f: having(s, dataset=e),
        TrainingClaimed: lambda s, e, f: having(s, claim=e, pause=None),
        WindowRecorded: _windowed,
        ControlEvaluated: lambda s, e, f: having(s, evaluations=s.evaluations.grown(e)),
        CheckpointWritten: _written,
        CheckpointStored: lambda s, e, f: _with_checkpoint(s, e, stored=e, stored_id=f.id),
        CheckpointPruned: lambda s, e, f: _with_checkpoint(s, e, gone="pruned"),
        CheckpointCorrupt: lambda s, e, f: _with_checkpoint(s, e, gone="corrupt"),
        CheckpointValidated: lambda s, e, f: _with_checkpoint(s, e, validated=e),
        ProblemDiagnosed: lambda s, e, f: having(s, diagnoses=(*s.diagnoses, (f.id, e))),
        MemoryExhausted: lambda s, e, f: having(s, exhausted=(f.id, e)),
        InterventionProposed: _proposed,
        AdvisorAsked: lambda s, e, f: having(s, questions={**s.questions, f.id: e}),
        AdvisorAnswered: lambda s, e, f: s if e.asked in s.answers else having(s, answers={**s.answers, e.asked: e}),
        AttemptBisected: lambda s, e, f: having(s, bisected={**s.bisected, e.segment: e}),
        InterventionApplied: _applied,
        InterventionDeclined: lambda s, e, f: having(s, declined=s.declined | {e.proposal}),
        ProposalApproved: _decided,
        ProposalRejected: _decided,
        DiagnosisReached: lambda s, e, f: having(s, diagnosed=e),
        JudgementWaived: lambda s, e, f: having(s, waived_judgement=True),
        OutcomeJudged: _judged,
        DivergenceFound: lambda s, e, f: having(s, incidents=(*s.incidents, e)),
        BirthAudited: lambda s, e, f: having(s, births=(*s.births, e)),
        TrainingPaused: lambda s, e, f: having(
            s, pause=e, paused_by_plan=e.step if e.by == "plan" else s.paused_by_plan
        ),
        TrainingResumed: lambda s, e, f: having(s, pause=None),
        ModelExported: ExportingState.exported,
        ExportRefused: ExportingState.refused,
        ResourcesSummarised: lambda s, e, f: having(s, resources=e),
        ResourcesAlerted: lambda s, e, f: having(s, alerts=(*s.alerts, e)),
        TrainingProfiled: lambda s, e, f: having(s, profile=e),
        ResourcesMeasured: lambda s, e, f: having(s, measured=s.measured.grown(e)),
        ResourcesAdvised: lambda s, e, f: having(s, advice=(*s.advice, e)),
        AdviceJudged: lambda s, e, f: having(s, advice_taken=(*s.advice_taken, e)),
    },
)

TRIAL = replace(TRAINING, name="trial", reported=False)
