"""What the trainer has done in children: torch is allowed in the modules here, the bus is not.

What its jobs are given, tell and answer stands here, where the trainer reads it without torch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from contracts.trainer import Computed, ControlEvaluated, TrainingProfiled, WindowRecorded
from runtime.engine.report import PoisonedRows, StepTrace
from runtime.home.workloads import WorkloadEntry
from runtime.jobs.job import JobContext, Seal, job, torch_profile
from runtime.node.capabilities import ResolveOrder
from runtime.replay.jobs import MachineIdentity


def _device(device: str) -> str:
    return "cpu" if device == "auto" else device


@job(
    purpose="prepare",
    profile=lambda order: torch_profile(1, _device(order.device)),
    ahead=("agents.trainer.jobs.plan",),
)
def resolve_request(order: ResolveOrder) -> Mapping[str, Any]:
    """Every `auto` of a request as a number; refused when the machine has no room for it."""
    from agents.trainer.jobs import plan

    return plan.resolve_order(order)


@dataclass(frozen=True)
class ProfileQuery:
    """A sealed profile of this machine: its threads, device and number format."""

    seal: Seal
    device: str
    precision: str


@dataclass(frozen=True)
class MachineProfile:
    """Which bits this machine computes under a profile, and its environment in words."""

    identity: MachineIdentity
    environment: Mapping[str, str]


@job(purpose="probe", profile=lambda asked: torch_profile(asked.seal.threads, asked.device))
def measure_profile(asked: ProfileQuery) -> MachineProfile:
    """Measure which bits this machine computes; nothing is trained."""
    from agents.trainer.jobs import plan

    return plan.identify(asked)


@dataclass(frozen=True)
class StateFile:
    """A state to begin in: a file, and the root that its tensors must have."""

    path: Path
    state_root: str


@dataclass(frozen=True)
class Repetitions:
    """Which repetitions of windows are still owed, and the folder and name under which state for them is kept.

    Windows behind step `since` are repeated that the plan wants rechecked.
    """

    owed: Sequence[str] = ()
    folder: Path = field(default_factory=Path)
    name: str = ""
    since: int = 0


@dataclass(frozen=True)
class AttemptTask:
    """A plan to train, with its data, and the state and evaluations with which this attempt begins.

    It begins with new weights, or those of the blob `initial`, where there is no state to `resume`. The rows are
    compared with their digests when they are to be verified. On a processor it takes no more than `memory` bytes beside
    what its process begins with, where that is said.
    """

    plan: Mapping[str, Any]
    seal: Seal
    device: str
    dataset: Path
    verify: bool
    blobs: Path
    resume: StateFile | None
    initial: str | None
    evaluations: Sequence[tuple[int, float]]
    workloads: Sequence[WorkloadEntry]
    repetitions: Repetitions = field(default_factory=Repetitions)
    memory: int | None = None
    paused_by_plan: int = 0
    """The last step at which the plan has paused it: pauses up to there are over."""


@dataclass(frozen=True)
class SetupEnd:
    """The job has its model, its state and its rows, and trains from here on."""

    step: int


@dataclass(frozen=True)
class HoldNotice:
    """The job holds at a grid step, because it was told to or because the plan pauses there.

    The seconds are those since it began, by what they were spent on."""

    step: int
    seconds: Mapping[str, float]
    planned: bool = False


@dataclass(frozen=True)
class PlanEnd:
    """The plan is done, and the job holds."""

    step: int
    stopped_early: bool
    seconds: Mapping[str, float]


@dataclass(frozen=True)
class WindowAccount:
    """All that a window gave: step by step, in the events that tell of it, and the root over all state after it."""

    trace: StepTrace
    computed: Sequence[WindowRecorded | ControlEvaluated]
    state_root: str


@dataclass(frozen=True)
class StagedWindow:
    """A window whose beginning is kept in a file, so that it can be repeated, and what it gave.

    It is repeated for a birth, to recheck it, or for both.
    """

    staged: Path
    segment: int
    first: int
    last: int
    evaluated: bool
    plan: Mapping[str, Any]
    evaluations: Sequence[tuple[int, float]]
    lived: WindowAccount
    birth: bool
    recheck: bool


@dataclass(frozen=True)
class Hold:
    """The order to hold at the next grid step."""


@dataclass(frozen=True)
class ChangePlan:
    """The order to go on from the step where the job holds with a change of the plan."""

    step: int
    changes: Mapping[str, Any]


@dataclass(frozen=True)
class Leave:
    """The order to end, and whether the state is kept first."""

    keep: bool


@dataclass(frozen=True)
class RepetitionEnd:
    """The word that a staged window has been repeated: another one may be staged."""


TrainingNews = Computed | SetupEnd | HoldNotice | PlanEnd | StagedWindow | TrainingProfiled
TrainingOrder = Hold | ChangePlan | Leave | RepetitionEnd
TrainingContext = JobContext[TrainingNews, TrainingOrder]


@job(
    purpose="train",
    profile=lambda task: torch_profile(task.seal.threads, task.device),
    ahead=("agents.trainer.jobs.train",),
)
def train_plan(context: TrainingContext, task: AttemptTask) -> int:
    """Train until the plan is done or the trainer orders the job to leave; the step that was reached."""
    from agents.trainer.jobs import train

    return train.run(context, task)


@dataclass(frozen=True)
class RepetitionTask:
    """A window to repeat; what came out there is not among it."""

    plan: Mapping[str, Any]
    seal: Seal
    device: str
    dataset: Path
    staged: Path
    last: int
    evaluations: Sequence[tuple[int, float]]
    workloads: Sequence[WorkloadEntry]


@job(purpose="audit", profile=lambda task: torch_profile(task.seal.threads, task.device))
def repeat_window(task: RepetitionTask) -> WindowAccount:
    """Repeat the window up to `last` in a process that has seen nothing of the training."""
    from agents.trainer.jobs import repeat

    return repeat.run(task)


RecheckContext = JobContext[WindowAccount, RepetitionTask]


@job(purpose="audit", profile=lambda task: torch_profile(task.seal.threads, task.device))
def recheck_windows(context: RecheckContext, task: RepetitionTask) -> None:
    """Repeat this window and every one that is ordered afterwards, and tell what each gave, until the host has gone."""
    from agents.trainer.jobs import repeat

    repeat.follow(context, task)


@dataclass(frozen=True)
class BisectionTask:
    """An attempt to begin again, and the last step of the window in which something was not finite."""

    attempt: AttemptTask
    last: int


@job(purpose="audit", profile=lambda task: torch_profile(task.attempt.seal.threads, task.attempt.device))
def bisect_window(task: BisectionTask) -> PoisonedRows:
    """Name the rows that made the window so, in a process that has seen nothing of the training."""
    from agents.trainer.jobs import train

    return train.bisect(task)
