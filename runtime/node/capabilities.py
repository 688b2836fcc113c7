"""What built-in agents have computed for others, by what it is: callers name a capability, never an agent's module.

An agent declares the job that serves a capability (`Agent.services`); `roster.job_for` gives it, with the types that
both ends have agreed on here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Never, TypeVar

from contracts.data_manager import DatasetPrepared, DatasetRejected
from contracts.exporter import ExportOrder
from contracts.roles import DATA_MANAGER, EXPORTER, TRAINER
from runtime.home.workloads import WorkloadEntry
from runtime.jobs.job import Job

A = TypeVar("A")
R = TypeVar("R")
T = TypeVar("T")
O = TypeVar("O")  # noqa: E741 - an order


@dataclass(frozen=True)
class Service:
    """A job, and the capability that it serves."""

    name: str
    job: Job[Any, Any, Any, Any]


@dataclass(frozen=True)
class Capability(Generic[A, R, T, O]):
    """Something that the agent of a role can have computed; its types are those of the job that serves it."""

    role: str
    name: str

    def by(self, job: Job[A, R, T, O]) -> Service:
        """This capability, as that job serves it."""
        return Service(self.name, job)


@dataclass(frozen=True)
class PreparationOrder:
    """The data section of a request, where its files may lie, and the store that is to hold the dataset.

    A dataset whose root is `standing` is not prepared again where the store has it.
    """

    data: Mapping[str, object]
    store: Path
    roots: Sequence[Path]
    trusted: Sequence[str]
    workloads: Sequence[WorkloadEntry]
    standing: str | None = None


@dataclass(frozen=True)
class PreparationProgress:
    """How many of all rows were read."""

    done: int
    total: int


PREPARE_DATASET: Capability[PreparationOrder, DatasetPrepared | DatasetRejected | None, PreparationProgress, Never] = (
    Capability(DATA_MANAGER, "prepare")
)
"""Prepare a dataset, or give every reason against it; None for one that stands in the store."""


@dataclass(frozen=True)
class ResolveOrder:
    """A request with its dataset, and the machine that is to train it: `room` is the folder that keeps checkpoints."""

    request: Mapping[str, object]
    dataset: Path
    blobs: Path
    room: Path
    device: str
    workloads: Sequence[WorkloadEntry]
    initial: str | None
    inherited: Mapping[str, Any] | None = None


RESOLVE_REQUEST: Capability[ResolveOrder, Mapping[str, Any], Never, Never] = Capability(TRAINER, "resolve")
"""Every `auto` of a request as a number."""


@dataclass(frozen=True)
class ExportTask:
    """An order, and where it is carried out: the file `work`/`filename` is made, and shown in `exports`.

    A name out of a log is never a path, so `filename` is the caller's own where the order comes from a log.
    """

    order: ExportOrder
    blobs: Path
    work: Path
    exports: Path
    filename: str
    workloads: Sequence[WorkloadEntry]


@dataclass(frozen=True)
class ExportRefusal:
    """Why there is no such file: a code for machines, a sentence and a cure for people."""

    code: str
    message: str
    cure: str


@dataclass(frozen=True)
class MadeFile:
    """A file that was made: the version of its operators where it has one, and what else there is to say of it."""

    opset: int | None
    details: Mapping[str, object] = field(default_factory=dict)


MAKE_EXPORT: Capability[ExportTask, MadeFile | ExportRefusal, Never, Never] = Capability(EXPORTER, "export")
"""Make one file of a trained model; nothing is proven and nothing published."""
