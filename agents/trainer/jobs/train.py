"""Trains in a forked child: advances the engine from grid step to grid step, tells what happened, obeys at grid steps.

Orders: `hold` (answered by `held` at the next grid step; then `go`, `change` or `leave` is awaited). At the end of the
plan the job holds by itself. Everything told is an event's data; when it is appended is the trainer's business.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from time import perf_counter
from typing import Any

import orjson

from agents.trainer.jobs.repeat import Staging, resume
from bus.blobs import DirectoryBlobs
from contracts.event import Event
from runtime.engine import checkpoint, seal, state
from runtime.engine.dataset import Dataset
from runtime.engine.loop import Run
from runtime.engine.plan import Change, Plan
from runtime.engine.report import Report
from runtime.engine.resolve import Sizes, refuse_rows_beyond
from runtime.home.workloads import enlist
from runtime.jobs import resources
from runtime.jobs.failpoints import failpoint
from runtime.jobs.job import Job
from runtime.replay import comparison, initial_state
from runtime.replay.comparison import Reason


def main(job: Job) -> dict[str, Any]:
    """Train by the arguments until the plan is done or the trainer orders the job to leave."""
    seal.apply(**job.args["seal"])
    enlist(job.args["workloads"])
    blobs = DirectoryBlobs(Path(job.args["blobs"]), before_rename=lambda: failpoint("during-rename"))
    spent = PhaseSeconds()
    plan = job.args["plan"]
    # What user code takes of this machine's own memory to build its model is counted nowhere else.
    bounded = plan["request"]["model"]["architecture"] == "workload" and plan["resolved"]["device"] == "cpu"
    with spent.on("setup"), resources.bounded() if bounded else nullcontext():
        run = _begin(job)
        seal.recheck(**job.args["seal"])
    run.measured(spent.timed)
    keeper, staging = Keeper(job, blobs, spent), Staging(job)
    if run.plan.changes:
        failpoint("between-apply-and-next-window")
    if run.step == run.plan.begins:
        keeper.keep(run, "planned")
    # After a death between the last checkpoint and the completion, only the completion is left to report.
    ended = run.step > 0 and run.finished
    while True:
        ended = ended or _advance(job, run, keeper, staging, spent)
        if ended:
            keeper.finish()
            early = run.step < run.plan.last_step
            job.tell("finished", step=run.step, stopped_early=early, seconds=spent.as_json())
        if not ended:
            order = job.order()
            if order is None or order.kind != "hold":
                continue
        if not _obey(job, run, keeper, spent):
            keeper.finish()
            return {"step": run.step}
        ended = False


def _advance(job: Job, run: Run, keeper: Keeper, staging: Staging, spent: PhaseSeconds) -> bool:
    """Go to the next grid step and tell what happened; whether that was the last."""
    with spent.on("birth audit"):
        staging.before(run)
    with spent.on("step"):
        report = run.advance()
        if report.evaluation is not None or report.finished:
            # What was computed under other settings is not told.
            seal.recheck(**job.args["seal"])
    with spent.on("log"):
        _tell(job, report)
    with spent.on("birth audit"):
        staging.after(run, report)
    if report.checkpoint:
        keeper.keep(run, report.checkpoint)
    elif keeper.overdue(run.plan.request.checkpoints.every_seconds):
        keeper.keep(run, "timed")
    return report.finished


def _begin(job: Job) -> Run:
    plan = Plan.from_json(job.args["plan"])
    if (free := resources.free_bytes()) is not None:
        sizes = Sizes.counted(plan.request, plan.resolved.parameters)
        sizes.refuse_beyond(free, device=plan.resolved.device)
    dataset = Dataset.open(Path(job.args["dataset"]), verify=job.args["verify"])
    if free is not None:
        refuse_rows_beyond(free, plan.resolved, dataset.facts)
    begin_in = job.args["resume"]
    if begin_in is None:
        return Run.start(plan, dataset, initial=initial_state.initial_tensors(job.args))
    return resume(job, dataset, Path(begin_in["path"]), begin_in["state_root"])


def _obey(job: Job, run: Run, keeper: Keeper, spent: PhaseSeconds) -> bool:
    """Report that the job holds, wait for an order and obey it; False when the job must leave."""
    keeper.finish()
    job.tell("held", step=run.step, seconds=spent.as_json())
    while True:
        with spent.on("held"):
            order = job.order(wait=True)
        if order is None or order.kind == "hold":
            continue
        if order.kind == "change":
            run.change(Change.from_json(order.data["change"]))
            failpoint("between-apply-and-next-window")
            return True
        if order.kind == "go":
            return True
        if order.kind == "leave":
            if order.data["keep"]:
                keeper.keep(run, "drain")
            return False


def _tell(job: Job, report: Report) -> None:
    if report.window is not None:
        failpoint("before-window")
        tell_event(job, comparison.window_event(report.window))
    if report.evaluation is not None:
        tell_event(job, comparison.evaluation_event(report.evaluation))


def tell_event(job: Job, event: Event) -> None:
    """Report an event to the trainer as a frame; exact floats travel as hex text, so no bit is lost."""
    job.tell(event.wire, data=orjson.loads(event.model_dump_json()))


JUDGED = ("planned", "best", "final")
"""Reasons that the engine gives, which has looked then whether the state is finite."""


class Keeper:
    """Writes staged state as blobs in a thread of its own, one at a time, and tells when a blob is safe on disk."""

    def __init__(self, job: Job, blobs: DirectoryBlobs, spent: PhaseSeconds) -> None:
        self._job = job
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
        tell_event(self._job, comparison.checkpoint_event(sealed, segment, reason, blob=blob, size=len(data)))


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
