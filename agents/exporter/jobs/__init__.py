"""The two jobs of an export in children: to make a file, and to prove in another process that it computes the same."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from runtime.jobs.job import ENGINE, Profile, job, torch_profile
from runtime.node.capabilities import ExportRefusal, ExportTask, MadeFile

GRAPHS = ("agents.exporter.jobs.libraries",)
"""What every fork that writes the graph of a model would import for itself."""


@dataclass(frozen=True)
class Timing:
    """How long a file takes to answer a batch of so many rows, over so many runs."""

    batch: int
    median_ms: float
    p95_ms: float
    runs: int


@dataclass(frozen=True)
class ProvenFile:
    """A file whose answers agree with the engine's and that was published: its blob, its figures, how long it takes."""

    blob: str
    bytes: int
    rows: int
    parity: Mapping[str, float]
    details: Mapping[str, object]
    timings: Sequence[Timing]


def export_profile(form: str) -> Profile:
    """What writes a file of this format and asks it; a graph of a model takes libraries that load for seconds."""
    return Profile(modules=(*ENGINE, *GRAPHS)) if form in ("onnx", "pt2") else torch_profile()


def _by_format(task: ExportTask) -> Profile:
    return export_profile(task.order.format)


@job(purpose="export", profile=_by_format)
def make_file(task: ExportTask) -> MadeFile | ExportRefusal:
    """Make one file in the work folder; nothing is proven and nothing published."""
    from agents.exporter.jobs import export

    return export.make(task)


@job(purpose="export", profile=_by_format)
def prove_file(task: ExportTask) -> ProvenFile | ExportRefusal:
    """Ask a finished file and the engine's model the same questions, and publish the file when the answers agree."""
    from agents.exporter.jobs import export

    return export.verify(task)
