"""The jobs that compute a session again, as their callers see them: what each is given, tells and answers.

They run code of the user's where a session has some, so no argument holds what was recorded: who runs a job compares.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contracts.findings import AuditedMachine
from contracts.trainer import Computed, WindowRecorded
from runtime.home.workloads import WorkloadEntry
from runtime.jobs.job import JobContext, Profile, Seal, claimed_threads, job, torch_profile


@dataclass(frozen=True)
class ReplayData:
    """Where a job about a session finds rows, checkpoints, and weights to begin with."""

    dataset: Path
    blobs: Path
    initial: str | None


@dataclass(frozen=True)
class Conditions:
    """How bits of a machine are computed: with its threads, on its device, with this code of the user's."""

    seal: Seal
    device: str
    workloads: Sequence[WorkloadEntry] = ()

    @classmethod
    def of(cls, machine: AuditedMachine, workloads: Sequence[WorkloadEntry] = ()) -> Conditions:
        """As it was where a session was trained."""
        return cls(Seal(claimed_threads(machine.threads)), machine.device, workloads)

    @property
    def profile(self) -> Profile:
        """What a process is sealed with that computes so."""
        return torch_profile(self.seal.threads, self.device)


@dataclass(frozen=True)
class SpanFile:
    """A span to compute: its plan, in a file, since there may be much of it; and its data."""

    path: Path
    data: ReplayData


@dataclass(frozen=True)
class SpanQuery:
    """A span, and how it is to be computed."""

    task: SpanFile
    under: Conditions


@dataclass(frozen=True)
class WindowQuery(SpanQuery):
    """The window from the grid step `first` to `last`, within a span."""

    first: int
    last: int


@dataclass(frozen=True)
class StepQuery(SpanQuery):
    """A step within a span."""

    step: int


@dataclass(frozen=True)
class FileQuery(StepQuery):
    """A step within a span of a session, and a file to read, or a file or folder to write."""

    place: Path
    session: str


@dataclass(frozen=True)
class BegunWindow:
    """A window that is not at its end yet."""

    window: WindowRecorded


@dataclass(frozen=True)
class SpanEnd:
    """Where and how a run ended: its step, and the fields of its completion."""

    step: int
    finished: bool
    stopped_early: bool
    best_step: int | None
    weights_digest: str
    state_root: str


@dataclass(frozen=True)
class NamedRows:
    """Which rows the window up to `last` cannot bear; see `contracts.trainer.AttemptBisected`."""

    last: int
    step: int
    rows: Sequence[int]
    looked: int


@dataclass(frozen=True)
class SettleNotice:
    """Everything so far was told; the job goes on once it was found to be as recorded."""


@dataclass(frozen=True)
class GoOn:
    """The order to go on."""


SpanNews = Computed | BegunWindow | SpanEnd | NamedRows | SettleNotice
SpanContext = JobContext[SpanNews, GoOn]


@dataclass(frozen=True)
class StateDigests:
    """A state that was computed and kept: its blob and its roots."""

    state_root: str
    weights_digest: str
    blob: str


@dataclass(frozen=True)
class KeptWeights:
    """The digest of weights that were written to a file, and how many tensors they are."""

    weights_digest: str
    tensors: int


@dataclass(frozen=True)
class ComputedStep:
    """One step: its loss, packed in hex, and the digest of the weights after it."""

    step: int
    loss: str
    weights_digest: str


@dataclass(frozen=True)
class MachineIdentity:
    """What decides which bits a process computes: the fingerprint, by operator family too, and the engine's bits.

    `resolved` is what a request resolves to there, or why it is refused, where that was asked.
    """

    fingerprint: str
    families: Mapping[str, str]
    engine_bits: int
    resolved: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class IdentityQuery:
    """Which bits are computed here; with a plan also the numbers that its request resolves to with these data."""

    device: str
    precision: str
    plan: Mapping[str, object] | None = None
    inherited: Mapping[str, object] | None = None
    data: ReplayData | None = None


@dataclass(frozen=True)
class ConditionedIdentity:
    """An identity to measure, and how."""

    query: IdentityQuery
    under: Conditions


@dataclass(frozen=True)
class IdentityQuestion:
    """The question of a job that opens an audit: which bits are computed here, with this code of the user's."""

    query: IdentityQuery
    workloads: Sequence[WorkloadEntry]


@dataclass(frozen=True)
class IdentityAnswer:
    """The answer to it, and what of the claim could not be read."""

    found: MachineIdentity
    unread: Sequence[str]


def _as_asked(query: SpanQuery | ConditionedIdentity) -> Profile:
    return query.under.profile


@job(purpose="audit", profile=_as_asked)
def measure_identity(asked: ConditionedIdentity) -> MachineIdentity:
    """Measure which bits a sealed process computes here."""
    from runtime.replay import reexecute

    return reexecute.measure(asked)


@job(purpose="audit", profile=_as_asked)
def compute_span(context: SpanContext, query: SpanQuery) -> None:
    """Compute a whole span again; everything is told as it comes."""
    from runtime.replay import reexecute

    reexecute.compute(context, query)


@job(purpose="audit", profile=_as_asked)
def compute_steps(context: SpanContext, query: WindowQuery) -> tuple[ComputedStep, ...]:
    """Every step of a window; none when the span has no grid step at its beginning."""
    from runtime.replay import stepwise

    return stepwise.steps(context, query)


@job(purpose="audit", profile=_as_asked)
def trace_operators(context: SpanContext, query: StepQuery) -> tuple[tuple[str, str, str], ...]:
    """Every operator of one attempt in order: module, operator, digest of its output."""
    from runtime.replay import stepwise

    return stepwise.operators(context, query)


@job(purpose="audit", profile=_as_asked)
def differing_tensor(context: SpanContext, query: FileQuery) -> str | None:
    """The first tensor, by name, in which the state at a step is not that of a checkpoint file; None when all are."""
    from runtime.replay import stepwise

    return stepwise.differing_tensor(context, query)


@job(purpose="audit", profile=_as_asked)
def restage_state(context: SpanContext, query: FileQuery) -> StateDigests:
    """Keep the state at a grid step in a store of blobs, as the checkpoint that is or would have been written there."""
    from runtime.replay import stepwise

    return stepwise.restage(context, query)


@job(purpose="audit", profile=_as_asked)
def rebuild_step_weights(context: SpanContext, query: FileQuery) -> KeptWeights:
    """Write the weights at a step to a safetensors file, once every window on the way came out as recorded."""
    from runtime.replay import stepwise

    return stepwise.rebuild(context, query)
