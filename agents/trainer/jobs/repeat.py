"""Repeats, in a process that has seen nothing of a training, a window of it; in the training child, stages what for.

The repeating process is not told what the training had given: its trainer compares, who runs no code of the user's.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from bus.disk import room_for
from runtime.engine import checkpoint, loop, seal
from runtime.engine.dataset import Dataset
from runtime.engine.loop import Run
from runtime.engine.plan import Plan
from runtime.engine.report import Control, Report
from runtime.engine.state import Tensors
from runtime.home.workloads import enlist
from runtime.jobs.job import Job


def main(job: Job) -> dict[str, Any]:
    """{"stretch": what the steps up to `last` gave}."""
    seal.apply(**job.args["seal"])
    enlist(job.args["workloads"])
    dataset = Dataset.open(Path(job.args["dataset"]), verify=False)
    again = loop.repeat_steps(resume(job, dataset, Path(job.args["staged"])), job.args["last"])
    seal.recheck(**job.args["seal"])
    return {"stretch": again.as_json()}


def resume(job: Job, dataset: Dataset, state: Path, state_root: str | None = None) -> Run:
    """The run of the job's plan in the state of a file; raises `NotVerified` when it is not that of the root."""
    plan = Plan.from_json(job.args["plan"])
    kept = checkpoint.unpack(state.read_bytes(), state_root=state_root)
    evaluations = [(step, float.fromhex(value)) for step, value in job.args["evaluations"]]
    control = Control.of(plan.request.early_stopping).after_all(evaluations)
    return Run.resume(plan, dataset, kept.tensors, kept.step, control=control)


class _WindowState(NamedTuple):
    """Everything about a run before a window; its state is written by a thread while training goes on."""

    path: Path
    first: int
    plan: Plan
    evaluations: list[list[Any]]
    written: Future[None]


class Staging:
    """Watches the windows of one process. The first is never repeated: it cannot depend on the process's memory."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._owed = set(job.args.get("birth", {}).get("owed", ()))
        self._evaluations: list[list[Any]] = list(job.args["evaluations"])
        self._staged: _WindowState | None = None
        self._begun = False

    def before(self, run: Run) -> None:
        """Before each window: start writing the state to a file when that window is to be repeated."""
        begun, self._begun = self._begun, True
        if begun and self._owed and not run.finished and self._owed & _worth(run.plan, run.step):
            path = Path(self._job.args["birth"]["folder"]) / f"{self._job.args['birth']['name']}-{run.step}"
            written = ThreadPoolExecutor(1).submit(_write, path, run.tensors(), run.step)
            self._staged = _WindowState(path, run.step, run.plan, list(self._evaluations), written)

    def after(self, run: Run, report: Report) -> None:
        """After each window: tell the trainer (`lived`) what a staged one gave, once its state is on disk."""
        staged, self._staged = self._staged, None
        if report.evaluation is not None:
            values = report.evaluation.values
            self._evaluations.append([report.step, values[report.evaluation.metric].hex()])
        if staged is None or report.window is None:
            return
        lived = loop.step_trace(staged.first, [report], run)
        staged.written.result()
        self._owed -= _worth(staged.plan, staged.first)
        self._job.tell(
            "lived",
            staged=str(staged.path),
            segment=report.window.segment,
            first=staged.first,
            last=report.step,
            evaluated=report.evaluation is not None,
            plan=staged.plan.as_json(),
            evaluations=staged.evaluations,
            stretch=lived.as_json(),
        )


def _worth(plan: Plan, step: int) -> set[str]:
    """Which repetitions, of those owed, the window after this step would satisfy."""
    judged = plan.evaluated_epoch(plan.next_grid(step)) is not None
    return {"window", "evaluation"} if judged else {"window"}


def _write(path: Path, tensors: Tensors, step: int) -> None:
    with room_for(path):
        path.write_bytes(checkpoint.pack(checkpoint.seal(tensors, step)))
