"""Jobs about one model in a child: what is in its checkpoint, what it answers, and what training it would take.

They change nothing. What each is given and answers stands here, so that a process without torch can have them run.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from contracts.errors import ChildDied, OutOfMemory
from runtime.engine.parts.levers import CutBatch
from runtime.home.silent_bugs import CodeFinding
from runtime.home.workloads import WorkloadEntry
from runtime.jobs.job import Seal, job, torch_profile
from runtime.model.checkpoints import ModelOrder


@dataclass(frozen=True)
class CheckpointFile:
    """A checkpoint's file, and the root that its state must have where that is known."""

    path: Path
    state_root: str | None = None


@dataclass(frozen=True)
class TensorSummary:
    """One tensor of a checkpoint; its norm is None where values are not finite."""

    name: str
    shape: Sequence[int]
    dtype: str
    elements: int
    bytes: int
    norm: float | None
    finite: bool


@dataclass(frozen=True)
class CheckpointSummary:
    """What is in a checkpoint file, its digest and roots computed again."""

    path: str
    blob: str
    bytes: int
    step: int
    state_root: str
    weights_digest: str
    aliases: Mapping[str, str]
    parameters: int
    finite: bool
    tensors: Sequence[TensorSummary]


@job(purpose="probe")
def inspect_checkpoint(file: CheckpointFile) -> CheckpointSummary:
    """Every tensor of a checkpoint file with its norm, once its digest and its roots have been recomputed."""
    from runtime.model import inspection

    return inspection.inspect(file)


@dataclass(frozen=True)
class AskedRows:
    """Rows to ask a model about, in the file `data` that a person calls `name`; its answers go to another file."""

    model: ModelOrder
    data: Path
    name: str
    form: str
    answers: Path


@dataclass(frozen=True)
class AnsweredRows:
    """Which model has answered, and how many rows."""

    step: int
    weights_digest: str
    task: str
    rows: int


@job(purpose="evaluate")
def predict_rows(asked: AskedRows) -> AnsweredRows:
    """The answers for the rows in a file, written to another as one JSON array."""
    from runtime.model import inspection

    return inspection.predict(asked)


@dataclass(frozen=True)
class RehearsalTask:
    """A plan to rehearse with its data, in the process that training would run in.

    On a processor it takes no more memory than is free, and than `most` bytes where that is said.
    """

    plan: Mapping[str, Any]
    seal: Seal
    device: str
    dataset: Path
    blobs: Path
    initial: str | None
    workloads: Sequence[WorkloadEntry]
    most: int | None = None

    @property
    def parts(self) -> tuple[int, int]:
        """The rows of one part of a step, and how many parts a step has."""
        resolved = self.plan["resolved"]
        return resolved["batch"], resolved["accumulate"]

    def halved(self) -> "RehearsalTask | None":
        """The same rows in each step, in twice as many parts, or the first number beyond that divides them.

        None where that cannot be.
        """
        rows, parts = self.parts
        training = {**self.plan["request"]["training"], "batch_size": rows, "accumulate": parts}
        request = {**self.plan["request"], "training": training}
        cut = CutBatch.below(request, rows)
        if cut is None:
            return None
        resolved = {**self.plan["resolved"], "batch": rows // cut.value, "accumulate": cut.value * parts}
        request["training"] = {**training, "batch_size": rows // cut.value, "accumulate": cut.value * parts}
        return replace(self, plan={**self.plan, "resolved": resolved, "request": request})


@dataclass(frozen=True)
class Rehearsal:
    """The first batch's loss, the seconds that one attempt took, and the memory at the peak."""

    loss: float
    step_seconds: float
    memory_bytes: int
    memory_before_bytes: int
    state_bytes: int


@job(purpose="probe", profile=lambda task: torch_profile(task.seal.threads, task.device))
def rehearse(task: RehearsalTask) -> Rehearsal:
    """A real batch forward and backward; nothing is kept."""
    from runtime.model import inspection

    return inspection.rehearse(task)


@job(purpose="probe", profile=lambda task: torch_profile(task.seal.threads, task.device))
def review_code(task: RehearsalTask) -> Sequence[CodeFinding]:
    """The silent bugs of the workloads of a plan, by their text, and by the model and a real batch."""
    from runtime.model import inspection

    return inspection.review(task)


async def halve_until_it_fits(
    task: RehearsalTask, rehearsed: Callable[[RehearsalTask], Awaitable[Rehearsal]]
) -> tuple[RehearsalTask, Rehearsal] | None:
    """The first half, quarter, ... of a batch whose rehearsal has room, each in a child of its own that may die.

    None when none has, or the batch cannot be halved.
    """
    while (half := task.halved()) is not None:
        task = half
        try:
            return task, await rehearsed(task)
        except (OutOfMemory, ChildDied):
            continue
    return None
