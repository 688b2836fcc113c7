"""Jobs that compute a span again and tell what came out. They read files and write none.

They run code of the user's, so they judge nothing: what was recorded is not among what they are given, and whoever
gave them the job compares, with `runtime.replay.comparison`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import orjson

from bus.blobs import DirectoryBlobs
from contracts.errors import InvalidRequest
from contracts.trainer import Computed
from runtime.engine import checkpoint, seal
from runtime.engine.dataset import Dataset
from runtime.engine.fingerprint import fingerprint
from runtime.engine.loop import ENGINE_BITS, Run
from runtime.engine.plan import Plan
from runtime.engine.report import Control, Window
from runtime.engine.resolve import resolve
from runtime.engine.state import Tensors, digest
from runtime.home.workloads import enlist
from runtime.jobs.job import Job
from runtime.replay import comparison, initial_state
from runtime.replay.spans import SpanTask

R = TypeVar("R", bound=Run)


def identity(job: Job) -> dict[str, Any]:
    """As `here`, in a child of its own."""
    seal.apply(**job.args["seal"])
    return here(job.args)


def here(args: Mapping[str, Any]) -> dict[str, Any]:
    """What makes the bits here, and the numbers that the request resolves to with this dataset, where it is at hand."""
    found = fingerprint(args["device"], args["precision"])
    about = {"fingerprint": found.digest, "families": dict(found.families), "engine_bits": ENGINE_BITS}
    if args["plan"] is None:
        return about | {"resolved": None}
    enlist(args["workloads"])
    plan, dataset = Plan.from_json(args["plan"]), Dataset.open(Path(args["dataset"]), verify=False)
    return about | {"resolved": _resolved(plan, dataset, initial_state.initial_tensors(args), args["inherited"])}


def _resolved(
    plan: Plan, dataset: Dataset, begun: Tensors | None, inherited: Mapping[str, Any] | None
) -> dict[str, Any]:
    cuda = plan.resolved.device == "cuda"
    try:
        found = resolve(plan.request, dataset.facts, cores=1, cuda=cuda, initial=begun, inherited=inherited)
    except InvalidRequest as error:
        return {"refused": error.message}
    # How many threads there are is the one number that the first claim's machine has a say in.
    return found.as_json() | ({} if inherited else {"threads": plan.resolved.threads})


def main(job: Job) -> dict[str, Any]:
    """Compute one span again; everything is told as it comes, and nothing is answered."""
    told = open_span(job, Run)[1]
    told.whole()
    seal.recheck(**job.args["seal"])
    return {}


def open_span(job: Job, kind: type[R]) -> tuple[R, SpanReporter]:
    """The run of the span at its beginning, and what tells of it. State is verified before code of the user's runs."""
    seal.apply(**job.args["seal"])
    args, task = job.args, SpanTask.model_validate_json(Path(job.args["span"]).read_bytes())
    tensors = None
    if task.start is not None:
        data = DirectoryBlobs(Path(args["blobs"])).get(task.start.blob)
        tensors = checkpoint.unpack(data, state_root=task.start.state_root).tensors
    enlist(args["workloads"])
    plan, dataset = Plan.from_json(task.plan), Dataset.open(Path(args["dataset"]), verify=False)
    if tensors is None:
        run = kind.start(plan, dataset, initial=initial_state.initial_tensors(args))
    else:
        control = Control.of(plan.request.early_stopping).after_all(task.evaluations)
        run = kind.resume(plan, dataset, tensors, task.begins, control=control)
    seal.recheck(**args["seal"])
    return run, SpanReporter(job, run, task)


class SpanReporter:
    """Moves the run of a span along and tells everything that is computed on the way."""

    def __init__(self, job: Job, run: Run, task: SpanTask) -> None:
        self._job = job
        self._run = run
        self._task = task
        self._kept = frozenset(task.kept)

    def whole(self) -> None:
        """Go to the end of the span, and say how the run ends if the session says that it ends there."""
        self.upto(self._task.ends)
        if self._task.closes:
            self._job.tell("ended", **self._ending())

    def upto(self, ends: int) -> None:
        """Go to the last grid step up to `ends`."""
        run = self._run
        if self._task.start is None and run.step == 0 and 0 in self._kept:
            self._checkpoint(0)
        while run.step < ends and not run.finished and run.plan.next_grid(run.step) <= ends:
            self._advance()

    def settle(self) -> None:
        """Return once the comparing process has found everything told so far as recorded; else it ends the job."""
        self._job.tell("settled")
        self._job.order(wait=True)

    def begun_window(self, seen: Window) -> None:
        """Tell of a window that is not at its end yet."""
        self._tell("begun_window", comparison.window_event(seen))

    def _advance(self) -> None:
        report = self._run.advance()
        if report.window is not None:
            self._tell("computed", comparison.window_event(report.window))
        if report.evaluation is not None:
            self._tell("computed", comparison.evaluation_event(report.evaluation))
        if report.checkpoint or report.step in self._kept:
            self._checkpoint(report.step)

    def _checkpoint(self, step: int) -> None:
        sealed = checkpoint.seal(self._run.tensors(), step, self._run.aliases)
        data = checkpoint.pack(sealed)
        segment = self._run.plan.segment_at(step - 1)
        event = comparison.checkpoint_event(sealed, segment, "planned", blob=digest(data), size=len(data))
        self._tell("computed", event)

    def _tell(self, kind: str, event: Computed) -> None:
        self._job.tell(kind, name=event.wire, data=orjson.loads(event.model_dump_json()))

    def _ending(self) -> dict[str, Any]:
        run = self._run
        sealed = checkpoint.seal(run.tensors(), run.step)
        return {
            "step": run.step,
            "finished": run.finished,
            "stopped_early": run.step < run.plan.last_step,
            "best_step": run.control.best_step,
            "weights_digest": sealed.weights_digest,
            "state_root": sealed.state_root,
        }
