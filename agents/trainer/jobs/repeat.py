"""Repeats, in a process that has seen nothing of a training, a window of it; in the training child, stages what for.

The repeating process is not told what the training had given: its trainer compares, who runs no code of the user's.
"""

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from agents.trainer.jobs import AttemptTask, RepetitionTask, StagedWindow, TrainingContext
from bus.disk import room_for
from runtime.engine import checkpoint, loop, seal
from runtime.engine.dataset import Dataset
from runtime.engine.loop import Run
from runtime.engine.plan import Plan
from runtime.engine.report import Control, Report, StepTrace
from runtime.engine.state import Tensors
from runtime.home.workloads import enlist


def run(task: RepetitionTask) -> StepTrace:
    """What the steps up to `last` gave."""
    sealed = asdict(task.seal)
    seal.apply(**sealed)
    enlist(task.workloads)
    dataset = Dataset.open(task.dataset, verify=False)
    again = loop.repeat_steps(resume(task, dataset, task.staged), task.last)
    seal.recheck(**sealed)
    return again


def resume(task: AttemptTask | RepetitionTask, dataset: Dataset, state: Path, state_root: str | None = None) -> Run:
    """The run of a task's plan in the state of a file; raises `NotVerified` when it is not that of the root."""
    plan = Plan.from_json(task.plan)
    kept = checkpoint.unpack(state.read_bytes(), state_root=state_root)
    control = Control.of(plan.request.early_stopping).after_all(task.evaluations)
    return Run.resume(plan, dataset, kept.tensors, kept.step, control=control)


class _WindowState(NamedTuple):
    """Everything about a run before a window; its state is written by a thread while training goes on."""

    path: Path
    first: int
    plan: Plan
    evaluations: tuple[tuple[int, float], ...]
    written: Future[None]


class Staging:
    """Watches the windows of one process. The first is never repeated: it cannot depend on the process's memory."""

    def __init__(self, context: TrainingContext, task: AttemptTask) -> None:
        self._context = context
        self._repetitions = task.repetitions
        self._owed = set(task.repetitions.owed)
        self._evaluations = list(task.evaluations)
        self._staged: _WindowState | None = None
        self._begun = False

    def before(self, run: Run) -> None:
        """Before each window: start writing the state to a file when that window is to be repeated."""
        begun, self._begun = self._begun, True
        if begun and self._owed and not run.finished and self._owed & _worth(run.plan, run.step):
            path = self._repetitions.folder / f"{self._repetitions.name}-{run.step}"
            written = ThreadPoolExecutor(1).submit(_write, path, run.tensors(), run.step)
            self._staged = _WindowState(path, run.step, run.plan, tuple(self._evaluations), written)

    def after(self, run: Run, report: Report) -> None:
        """After each window: tell the trainer what a staged one gave, once its state is on disk."""
        staged, self._staged = self._staged, None
        if report.evaluation is not None:
            values = report.evaluation.values
            self._evaluations.append((report.step, values[report.evaluation.metric]))
        if staged is None or report.window is None:
            return
        lived = loop.step_trace(staged.first, [report], run)
        staged.written.result()
        self._owed -= _worth(staged.plan, staged.first)
        self._context.tell(
            StagedWindow(
                staged=staged.path,
                segment=report.window.segment,
                first=staged.first,
                last=report.step,
                evaluated=report.evaluation is not None,
                plan=staged.plan.as_json(),
                evaluations=staged.evaluations,
                trace=lived,
            )
        )


def _worth(plan: Plan, step: int) -> set[str]:
    """Which repetitions, of those owed, the window after this step would satisfy."""
    judged = plan.evaluated_epoch(plan.next_grid(step)) is not None
    return {"window", "evaluation"} if judged else {"window"}


def _write(path: Path, tensors: Tensors, step: int) -> None:
    with room_for(path):
        path.write_bytes(checkpoint.pack(checkpoint.seal(tensors, step)))
