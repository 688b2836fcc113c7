"""Trains in a forked child: advances the engine from grid step to grid step, tells what happened, obeys at grid steps.

Orders: `Hold` (answered by `HoldNotice` at the next grid step; then `ChangePlan` or `Leave` is awaited). At the end of
the plan, and where it pauses, the job holds by itself. What is told of training are events; when they are appended is
the trainer's business.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from time import perf_counter
from typing import Any

from agents.trainer.jobs import (
    AttemptTask,
    BisectionTask,
    ChangePlan,
    Hold,
    HoldNotice,
    Leave,
    PlanEnd,
    RepetitionEnd,
    SetupEnd,
    TrainingContext,
)
from agents.trainer.jobs.repeat import Staging, resume
from bus.blobs import DirectoryBlobs
from contracts.trainer import ProfiledOperator, TrainingProfiled
from runtime.engine import checkpoint, seal, state
from runtime.engine.dataset import Dataset
from runtime.engine.loop import Run
from runtime.engine.plan import Change, Plan
from runtime.engine.report import PoisonedRows, Report
from runtime.engine.resolve import Sizes, refuse_rows_beyond
from runtime.home.workloads import enlist
from runtime.jobs import resources
from runtime.jobs.failpoints import failpoint
from runtime.replay import comparison, initial_state
from runtime.replay.comparison import Reason


def run(context: TrainingContext, task: AttemptTask) -> int:
    """Train by the task until the plan is done or the trainer orders the job to leave; the step that was reached."""
    # A driver of a GPU takes memory in ways of its own, which are not to be judged here.
    limited = task.memory is not None and task.device == "cpu"
    with resources.bounded(task.memory, free_too=False) if limited else nullcontext():
        return _trained(context, task)


def _trained(context: TrainingContext, task: AttemptTask) -> int:
    sealed = asdict(task.seal)
    seal.apply(**sealed)
    enlist(task.workloads)
    blobs = DirectoryBlobs(task.blobs, before_rename=lambda: failpoint("during-rename"))
    spent = PhaseSeconds()
    plan = task.plan
    # What user code takes of this machine's own memory to build its model is counted nowhere else.
    bounded = plan["request"]["model"]["architecture"] == "workload" and plan["resolved"]["device"] == "cpu"
    with spent.on("setup"), resources.bounded() if bounded else nullcontext():
        run = _begin(task)
        seal.recheck(**sealed)
    context.tell(SetupEnd(run.step))
    profile = StepProfile(run, task, context)
    run.measured(lambda name, function: spent.timed(name, profile.counted(name, function)))
    keeper, staging = Keeper(context, blobs, spent), Staging(context, task)
    if run.plan.changes:
        failpoint("between-apply-and-next-window")
    if run.step == run.plan.begins:
        keeper.keep(run, "planned")
    # After a death between the last checkpoint and the completion, only the completion is left to report.
    ended = run.step > 0 and run.finished
    over = run.plan.epoch_at(max(task.paused_by_plan, run.plan.begins))
    pauses = [epoch for epoch in sorted(run.plan.request.training.pauses) if epoch > over]
    while True:
        # A pause by a person may have come first, at the very step.
        planned = not ended and _reached(pauses, run)
        if not planned:
            ended = ended or _advance(context, run, keeper, staging, spent, sealed)
            planned = not ended and _reached(pauses, run)
        if ended:
            profile.finish()
            keeper.finish()
            early = run.step < run.plan.last_step
            context.tell(PlanEnd(run.step, early, spent.as_json()))
        while ended or planned or _is_to_hold(context, run, staging, spent):
            if not _obey(context, run, keeper, staging, spent, planned=planned):
                keeper.finish()
                return run.step
            ended = planned = False


def _is_to_hold(context: TrainingContext, run: Run, staging: Staging, spent: PhaseSeconds) -> bool:
    """Whether the job was ordered to hold; waits until the next window may be staged, where it is to be rechecked."""
    while True:
        waits = staging.must_wait(run)
        with spent.on("birth audit") if waits else nullcontext():
            order = context.order(wait=waits)
        match order:
            case RepetitionEnd():
                staging.on_verdict()
            case Hold():
                return True
            case _:
                return False


def _advance(
    context: TrainingContext,
    run: Run,
    keeper: Keeper,
    staging: Staging,
    spent: PhaseSeconds,
    sealed: Mapping[str, Any],
) -> bool:
    """Go to the next grid step and tell what happened; whether that was the last."""
    with spent.on("birth audit"):
        staging.before(run)
    with spent.on("step"):
        report = run.advance()
        if report.evaluation is not None or report.finished:
            # What was computed under other settings is not told.
            seal.recheck(**sealed)
    with spent.on("log"):
        _tell(context, report)
    with spent.on("birth audit"):
        staging.after(run, report)
    if report.checkpoint:
        keeper.keep(run, report.checkpoint)
    elif keeper.overdue(run.plan.request.checkpoints.every_seconds):
        keeper.keep(run, "timed")
    return report.finished


def _reached(pauses: list[int], run: Run) -> bool:
    """Whether the run has come to a pause; those that it has come to are taken off the list."""
    left = [epoch for epoch in pauses if epoch > run.plan.epoch_at(run.step)]
    reached = len(left) < len(pauses)
    pauses[:] = left
    return reached


def _begin(task: AttemptTask) -> Run:
    plan = Plan.from_json(task.plan)
    if (free := resources.free_bytes()) is not None:
        sizes = Sizes.counted(plan.request, plan.resolved.parameters)
        sizes.refuse_beyond(free, device=plan.resolved.device)
    dataset = Dataset.open(task.dataset, verify=task.verify)
    if free is not None:
        newest = plan.resolved_at(plan.changes[-1].step if plan.changes else 0)
        refuse_rows_beyond(free, newest, dataset.facts, plan.request.data.workers)
    if task.resume is None:
        return Run.start(plan, dataset, initial=initial_state.initial_tensors(task.blobs, task.initial))
    return resume(task, dataset, task.resume.path, task.resume.state_root)


def bisect(task: BisectionTask) -> PoisonedRows:
    """Train up to the window, and name the rows that it cannot bear."""
    sealed = asdict(task.attempt.seal)
    seal.apply(**sealed)
    enlist(task.attempt.workloads)
    found = _begin(task.attempt).bisect(task.last)
    seal.recheck(**sealed)
    return found


def _obey(
    context: TrainingContext, run: Run, keeper: Keeper, staging: Staging, spent: PhaseSeconds, *, planned: bool
) -> bool:
    """Report that the job holds, wait for an order and obey it; False when the job must leave."""
    keeper.finish()
    context.tell(HoldNotice(run.step, spent.as_json(), planned))
    while True:
        with spent.on("held"):
            order = context.order(wait=True)
        match order:
            case ChangePlan(step, changes):
                run.change(Change.read(step, changes))
                failpoint("between-apply-and-next-window")
                return True
            case RepetitionEnd():
                staging.on_verdict()
            case Leave(keep):
                if keep:
                    keeper.keep(run, "drain")
                return False


def _tell(context: TrainingContext, report: Report) -> None:
    if report.window is not None:
        failpoint("before-window")
        context.tell(comparison.window_event(report.window))
    if report.evaluation is not None:
        context.tell(comparison.evaluation_event(report.evaluation))


JUDGED = ("planned", "best", "final")
"""Reasons that the engine gives, which has looked then whether the state is finite."""


class Keeper:
    """Writes staged state as blobs in a thread of its own, one at a time, and tells when a blob is safe on disk."""

    def __init__(self, context: TrainingContext, blobs: DirectoryBlobs, spent: PhaseSeconds) -> None:
        self._context = context
        self._blobs = blobs
        self._spent = spent
        self._last = time.monotonic()
        self._staged: dict[str, Any] | None = None
        self._work: queue.Queue[tuple[Any, ...]] = queue.Queue(maxsize=1)
        self._failure: BaseException | None = None
        self._kept: set[int] = set()
        threading.Thread(target=self._write_all, daemon=True).start()

    def keep(self, run: Run, reason: Reason) -> None:
        """Copy the state and hand it over; waits only while the last one is still being written.

        State that is not finite is never kept; training then continues from an earlier checkpoint.
        """
        if run.step in self._kept:
            return
        self.finish()
        with self._spent.on("checkpoint"):
            self._staged = run.tensors(self._staged)
            self._last = time.monotonic()
            if reason not in JUDGED and not state.finite(self._staged):
                return
        self._kept.add(run.step)
        # State belongs to the segment that computed it: a segment that begins at this step did not, not even at step 0.
        segment = run.plan.segment_at(run.step - 1)
        self._work.put((segment, run.step, reason, dict(run.aliases)))

    def overdue(self, every: float | None) -> bool:
        """Whether the last checkpoint is so many seconds old. Which steps that gives depends on the clock."""
        return every is not None and time.monotonic() - self._last >= every

    def finish(self) -> None:
        """Return when everything handed over is on disk; raises the error that writing raised."""
        with self._spent.on("checkpoint"):
            self._work.join()
        if self._failure is not None:
            raise self._failure

    def _write_all(self) -> None:
        while True:
            segment, step, reason, aliases = self._work.get()
            try:
                self._write(segment, step, reason, aliases)
            except BaseException as error:  # noqa: BLE001 - handed to the training thread, which raises it
                self._failure = error
            finally:
                self._work.task_done()

    def _write(self, segment: int, step: int, reason: Reason, aliases: dict[str, str]) -> None:
        sealed = checkpoint.seal(self._staged or {}, step, aliases)
        data = checkpoint.pack(sealed)
        blob = self._blobs.put(data)
        failpoint("between-blob-and-event")
        self._context.tell(comparison.checkpoint_event(sealed, segment, reason, blob=blob, size=len(data)))


WARM = 5
"""Steps before those that are profiled: the first ones compile, allocate and read what later ones find."""
MOST_PARTS = 2000
"""Batches of which a profile is taken; a step has `accumulate` of them."""
MOST_OPERATORS = 25
"""Operators that a profile tells of."""


class StepProfile:
    """Has torch's profiler look at the steps that a request names, of the attempt that begins at the first step.

    Steps are counted where their rows are fetched, so that a profile is of whole steps, whatever windows are.
    """

    def __init__(self, run: Run, task: AttemptTask, context: TrainingContext) -> None:
        training, resolved = run.plan.request.training, run.plan.resolved_at(run.step)
        self._context, self._segment, self._first = context, run.plan.segment_at(run.step), run.step + WARM
        self._device = resolved.device
        self._parts = resolved.accumulate
        # What the profiler keeps grows with every call of an operator.
        self._wanted = min(training.profile, MOST_PARTS // self._parts) if task.resume is None else 0
        self._fetched = 0
        self._profiler: Any = None
        self._began = 0.0

    def counted(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The same function; where it fetches rows, a step begins with it."""
        if name != "data" or not self._wanted:
            return function

        def fetch(*args: Any) -> Any:
            if self._fetched == WARM * self._parts:
                self._start()
            elif self._fetched == (WARM + self._wanted) * self._parts:
                self.finish()
            self._fetched += 1
            return function(*args)

        return fetch

    def finish(self) -> None:
        """Tell of what was profiled until now, once."""
        if self._profiler is None:
            return
        profiler, self._profiler, seconds = self._profiler, None, perf_counter() - self._began
        profiler.__exit__(None, None, None)
        averages = sorted(profiler.key_averages(), key=lambda each: -(each.self_cpu_time_total + _on_device(each)))
        operators = [
            ProfiledOperator(
                name=each.key[:120],
                calls=each.count,
                cpu_ms=round(each.self_cpu_time_total / 1e3, 3),
                device_ms=round(_on_device(each) / 1e3, 3),
            )
            for each in averages[:MOST_OPERATORS]
        ]
        others = sum(each.self_cpu_time_total for each in averages[MOST_OPERATORS:])
        steps = min(self._fetched // self._parts - WARM, self._wanted)
        self._context.tell(
            TrainingProfiled(
                segment=self._segment,
                first=self._first,
                steps=steps,
                seconds=round(seconds, 6),
                operators=operators,
                others_ms=round(others / 1e3, 3),
            )
        )

    def _start(self) -> None:
        # That of `torch.profiler` imports the compiler first, which takes seconds within the step.
        from torch.autograd.profiler import profile

        # Else it writes two lines to the terminal, whoever has it.
        os.environ.setdefault("KINETO_LOG_LEVEL", "6")
        self._profiler = profile(use_device=self._device if self._device != "cpu" else None)
        self._began = perf_counter()
        self._profiler.__enter__()


def _on_device(average: Any) -> float:
    """Microseconds of an operator's own on the device; older torch names them after CUDA."""
    found = getattr(average, "self_device_time_total", None)
    return float(getattr(average, "self_cuda_time_total", 0.0) if found is None else found)


class PhaseSeconds:
    """Seconds by what they were spent on; what is measured inside something else is not counted twice."""

    def __init__(self) -> None:
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._total = 0.0

    @contextmanager
    def on(self, name: str) -> Iterator[None]:
        """Everything inside, without what is measured there under other names."""
        begun, before = perf_counter(), self._total
        try:
            yield
        finally:
            took = perf_counter() - begun
            self._seconds[name] += took - (self._total - before)
            self._total = before + took

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, its time counted; cheap enough for every step. Nothing may be measured inside it."""

        def measured(*args: Any) -> Any:
            begun = perf_counter()
            answer = function(*args)
            took = perf_counter() - begun
            self._seconds[name] += took
            self._total += took
            return answer

        return measured

    def as_json(self) -> dict[str, float]:
        """Seconds so far, to the millisecond."""
        return {name: round(seconds, 3) for name, seconds in self._seconds.items()}
