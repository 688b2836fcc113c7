"""Jobs that compute a span again and tell what came out. They read files and write none.

They run code of the user's, so they judge nothing: what was recorded is not among what they are given, and whoever
gave them the job compares, with `runtime.replay.comparison`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import TypeVar

from bus.blobs import DirectoryBlobs
from contracts.errors import InvalidRequest
from runtime.engine import checkpoint, seal
from runtime.engine.dataset import Dataset
from runtime.engine.fingerprint import fingerprint
from runtime.engine.loop import ENGINE_BITS, Run
from runtime.engine.plan import Plan
from runtime.engine.report import Control, Window
from runtime.engine.resolve import resolve
from runtime.engine.state import Tensors, digest
from runtime.home.workloads import enlist
from runtime.replay import comparison, initial_state, jobs
from runtime.replay.spans import SpanTask

R = TypeVar("R", bound=Run)


def measure(asked: jobs.ConditionedIdentity) -> jobs.MachineIdentity:
    """What makes the bits here, and the numbers that the request resolves to with this dataset, where it is at hand."""
    seal.apply(**asdict(asked.under.seal))
    query = asked.query
    found = fingerprint(query.device, query.precision)
    machine = jobs.MachineIdentity(found.digest, dict(found.families), ENGINE_BITS)
    if query.plan is None or query.data is None:
        return machine
    enlist(asked.under.workloads)
    plan, dataset = Plan.from_json(query.plan), Dataset.open(query.data.dataset, verify=False)
    begun = initial_state.initial_tensors(query.data.blobs, query.data.initial)
    return replace(machine, resolved=_resolved(plan, dataset, begun, query.inherited))


def _resolved(
    plan: Plan, dataset: Dataset, begun: Tensors | None, inherited: Mapping[str, object] | None
) -> Mapping[str, object]:
    cuda = plan.resolved.device == "cuda"
    try:
        found = resolve(plan.request, dataset.facts, cores=1, cuda=cuda, initial=begun, inherited=inherited)
    except InvalidRequest as error:
        return {"refused": error.message}
    if not inherited:
        # What the first claim's machine and software have a say in: how many threads, and what windows tell.
        found = replace(found, threads=plan.resolved.threads, sensors=plan.resolved.sensors)
    return found.as_json()


def compute(context: jobs.SpanContext, query: jobs.SpanQuery) -> None:
    """Compute one span again; everything is told as it comes, and nothing is answered."""
    told = open_span(context, query, Run)[1]
    told.whole()
    for asked in told.task.questions:
        found = open_span(context, query, Run, asked.changes)[0].bisect(asked.last)
        context.tell(jobs.NamedRows(asked.last, found.step, found.rows, found.looked))
    seal.recheck(**asdict(query.under.seal))


def open_span(
    context: jobs.SpanContext, query: jobs.SpanQuery, kind: type[R], changes: int | None = None
) -> tuple[R, SpanReporter]:
    """The run of the span at its beginning, and what tells of it, by the plan with its first so many changes or all.

    State is verified before code of the user's runs.
    """
    sealed, data = asdict(query.under.seal), query.task.data
    seal.apply(**sealed)
    task, tensors = SpanTask.model_validate_json(query.task.path.read_bytes()), None
    if task.start is not None:
        content = DirectoryBlobs(data.blobs).get(task.start.blob)
        tensors = checkpoint.unpack(content, state_root=task.start.state_root).tensors
    enlist(query.under.workloads)
    plan, dataset = Plan.from_json(task.plan), Dataset.open(data.dataset, verify=False)
    plan = replace(plan, changes=plan.changes[:changes])
    if tensors is None:
        run = kind.start(plan, dataset, initial=initial_state.initial_tensors(data.blobs, data.initial))
    else:
        control = Control.of(plan.request.early_stopping).after_all(task.evaluations)
        run = kind.resume(plan, dataset, tensors, task.begins, control=control)
    seal.recheck(**sealed)
    return run, SpanReporter(context, run, task)


class SpanReporter:
    """Moves the run of a span along and tells everything that is computed on the way."""

    def __init__(self, context: jobs.SpanContext, run: Run, task: SpanTask) -> None:
        self._context = context
        self._run = run
        self.task = task
        self._kept = frozenset(task.kept)

    def whole(self) -> None:
        """Go to the end of the span, and say how the run ends if the session says that it ends there."""
        self.upto(self.task.ends)
        if self.task.closes:
            self._context.tell(self._ending())

    def upto(self, ends: int) -> None:
        """Go to the last grid step up to `ends`."""
        run = self._run
        if self.task.start is None and run.step == 0 and 0 in self._kept:
            self._checkpoint(0)
        while run.step < ends and not run.finished and run.plan.next_grid(run.step) <= ends:
            self._advance()

    def settle(self) -> None:
        """Return once the comparing process has found everything told so far as recorded; else it ends the job."""
        self._context.tell(jobs.SettleNotice())
        self._context.order(wait=True)

    def begun_window(self, seen: Window) -> None:
        """Tell of a window that is not at its end yet."""
        self._context.tell(jobs.BegunWindow(comparison.window_event(seen)))

    def _advance(self) -> None:
        report = self._run.advance()
        if report.window is not None:
            self._context.tell(comparison.window_event(report.window))
        if report.evaluation is not None:
            self._context.tell(comparison.evaluation_event(report.evaluation))
        if report.checkpoint or report.step in self._kept:
            self._checkpoint(report.step)

    def _checkpoint(self, step: int) -> None:
        sealed = checkpoint.seal(self._run.tensors(), step, self._run.aliases)
        data = checkpoint.pack(sealed)
        segment = self._run.plan.segment_at(step - 1)
        event = comparison.checkpoint_event(sealed, segment, "planned", blob=digest(data), size=len(data))
        self._context.tell(event)

    def _ending(self) -> jobs.SpanEnd:
        run = self._run
        sealed = checkpoint.seal(run.tensors(), run.step)
        return jobs.SpanEnd(
            step=run.step,
            finished=run.finished,
            stopped_early=run.step < run.plan.last_step,
            best_step=run.control.best_step,
            weights_digest=sealed.weights_digest,
            state_root=sealed.state_root,
        )
