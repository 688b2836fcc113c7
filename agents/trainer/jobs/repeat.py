"""Repeats, in a process that has seen nothing of a training, a window of it; in the training child, stages what for.

The repeating process is not told what the training had given: its trainer compares, who runs no code of the user's.
"""

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from agents.trainer.jobs import (
    AttemptTask,
    RecheckContext,
    RepetitionTask,
    StagedWindow,
    TrainingContext,
    WindowAccount,
)
from bus.disk import room_for
from contracts.errors import NotVerified
from runtime.engine import checkpoint, loop, seal, state
from runtime.engine.dataset import Dataset
from runtime.engine.loop import Run
from runtime.engine.plan import Plan
from runtime.engine.report import Control, Report
from runtime.engine.state import Tensors
from runtime.home.workloads import enlist
from runtime.replay import comparison

STAGED_AT_ONCE = 2
"""Windows to recheck that have no verdict yet: one is repeated while the next one is trained."""


def run(task: RepetitionTask) -> WindowAccount:
    """What the window up to `last` gave."""
    seal.apply(**asdict(task.seal))
    enlist(task.workloads)
    return _repeat(task, Dataset.open(task.dataset, verify=False))


def follow(context: RecheckContext, first: RepetitionTask) -> None:
    """Tell what one window after the other gave; all are of one session, and of a model of ours."""
    seal.apply(**asdict(first.seal))
    dataset, task = Dataset.open(first.dataset, verify=False), first
    while True:
        context.tell(_repeat(task, dataset))
        ordered = context.order(wait=True)
        if ordered is None:
            return
        task = ordered


def _repeat(task: RepetitionTask, dataset: Dataset) -> WindowAccount:
    again = resume(task, dataset, task.staged)
    first, report = again.step, again.advance()
    if again.step != task.last:
        raise NotVerified(f"the window behind step {first} ends at step {again.step}, and ended at step {task.last}")
    seal.recheck(**asdict(task.seal))
    return _account(first, report, again, again.tensors())


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
    birth: bool
    recheck: bool


class Staging:
    """Watches the windows of one process. A birth is never the first: that cannot depend on the process's memory."""

    def __init__(self, context: TrainingContext, task: AttemptTask) -> None:
        self._context = context
        self._repetitions = task.repetitions
        self._owed = set(task.repetitions.owed)
        self._evaluations = list(task.evaluations)
        self._staged: _WindowState | None = None
        self._begun = False
        self._open = 0
        self._after: tuple[int, Mapping[str, Tensor]] | None = None

    def must_wait(self, run: Run) -> bool:
        """Whether the next window is to be rechecked and too many that were staged have no verdict yet."""
        return self._open >= STAGED_AT_ONCE and not run.finished and self._rechecks(run)

    def on_verdict(self) -> None:
        """Hear that a staged window has its verdict."""
        self._open -= 1

    def before(self, run: Run) -> None:
        """Before each window: start writing the state to a file when that window is to be repeated."""
        begun, self._begun = self._begun, True
        if run.finished:
            return
        birth, recheck = begun and bool(self._owed & _worth(run.plan, run.step)), self._rechecks(run)
        if birth or recheck:
            path = self._repetitions.folder / f"{self._repetitions.name}-{run.step}"
            step, kept = self._after or (-1, {})
            # What was compared at the end of a window begins the next: nothing changes unseen between them.
            tensors = kept if step == run.step else run.tensors()
            written = ThreadPoolExecutor(1).submit(_write, path, tensors, run.step)
            evaluations = tuple(self._evaluations)
            self._staged = _WindowState(path, run.step, run.plan, evaluations, written, birth, recheck)
        self._after = None

    def after(self, run: Run, report: Report) -> None:
        """After each window: tell the trainer what a staged one gave, once its state is on disk."""
        staged, self._staged = self._staged, None
        if report.evaluation is not None:
            values = report.evaluation.values
            self._evaluations.append((report.step, values[report.evaluation.metric]))
        if staged is None or report.window is None:
            return
        tensors = run.tensors()
        lived = _account(staged.first, report, run, tensors)
        self._after = (run.step, tensors)
        staged.written.result()
        if staged.birth:
            self._owed -= _worth(staged.plan, staged.first)
        self._open += 1
        self._context.tell(
            StagedWindow(
                staged=staged.path,
                segment=report.window.segment,
                first=staged.first,
                last=report.step,
                evaluated=report.evaluation is not None,
                plan=staged.plan.as_json(),
                evaluations=staged.evaluations,
                lived=lived,
                birth=staged.birth,
                recheck=staged.recheck,
            )
        )

    def _rechecks(self, run: Run) -> bool:
        return run.step >= self._repetitions.since and run.plan.is_rechecked(run.step)


def _account(first: int, report: Report, run: Run, tensors: Tensors) -> WindowAccount:
    computed = [comparison.window_event(report.window)] if report.window else []
    seen = [comparison.evaluation_event(report.evaluation)] if report.evaluation else []
    trace = loop.step_trace(first, [report], run, tensors)
    return WindowAccount(trace, [*computed, *seen], state.root_of(bytes.fromhex(one) for one in trace.leaves.values()))


def _worth(plan: Plan, step: int) -> set[str]:
    """Which births, of those owed, the window after this step would satisfy."""
    judged = plan.evaluated_epoch(plan.next_grid(step)) is not None
    return {"window", "evaluation"} if judged else {"window"}


def _write(path: Path, tensors: Tensors, step: int) -> None:
    with room_for(path):
        path.write_bytes(checkpoint.pack(checkpoint.seal(tensors, step)))
