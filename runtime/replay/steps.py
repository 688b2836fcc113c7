"""Single steps of a span: where in it a divergence lies, and the state of a session at any step.

The log holds a digest for each window and a loss for each step, and nothing of operators. So the window is found by
digest and the step by the bits of its loss; an operator is named when it does not give the same output twice here,
or when another machine's trace of the same step is at hand to compare with. The jobs are in `runtime.replay.jobs`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TypeVar

from bus.blobs import DirectoryBlobs
from contracts.errors import InvalidInput, NotVerified, Refused, SwarmError
from contracts.findings import DivergencePlace, OperatorDifference, SpanDivergence
from contracts.trainer import CheckpointWritten, WindowRecorded
from runtime.jobs.job import Job
from runtime.replay import audit_plan, audit_runner, jobs
from runtime.replay.audit_subject import AuditSubject
from runtime.replay.spans import SpanSpec, nearest_span, session_spans
from runtime.replay.verdict import sentence

if TYPE_CHECKING:
    from runtime.jobs.children import Children

R = TypeVar("R")
Trace = Sequence[tuple[str, str, str]]


async def locate_divergence(
    auditing: audit_runner.AuditJobs, task: jobs.SpanFile, spec: SpanSpec, span: int, found: SpanDivergence
) -> DivergencePlace:
    """Window, step and operator of a divergence, with sentences that say how far each can be known.

    `task` is what a job about the span is given, `spec` is the span with its records and `span` its number.
    """
    window = [found.first, found.last]
    try:
        if found.name == WindowRecorded.wire and found.field:
            return await _in_window(auditing, task, spec, span, found)
        return await _elsewhere(auditing, task, span, found)
    except SwarmError as error:
        # The divergence is certain already, even if the code behaves differently when it is watched.
        told = f"the place could not be looked at step by step: {error.message}"
        return DivergencePlace(span=span, window=window, field=found.field, sentences=[told])


async def _in_window(
    auditing: audit_runner.AuditJobs, task: jobs.SpanFile, spec: SpanSpec, span: int, found: SpanDivergence
) -> DivergencePlace:
    first, last, step = found.first, found.last, found.step
    runs = [await _steps(auditing, task, spec, first, last) for _ in range(2)]
    shaky = next((one.step for one, other in zip(*runs, strict=False) if one != other), None)
    # A loss is the work of its own attempt's way forward, or of the update before it.
    suspects = [step - 1, step] if step > first else [step if step >= 0 else last - 1]
    suspects = [shaky] if shaky is not None else suspects
    operator, counted = await _operator(auditing, task, spec, suspects)
    return DivergencePlace(
        span=span,
        window=[first, last],
        field=found.field,
        step=step if step >= 0 else None,
        reproducible=shaky is None and len(runs[0]) == len(runs[1]),
        attempts=suspects,
        operator=operator,
        operators_compared=counted,
        sentences=[_of_step(found), *_of_operator(shaky, operator, counted, suspects)],
    )


async def _steps(
    auditing: audit_runner.AuditJobs, task: jobs.SpanFile, spec: SpanSpec, first: int, last: int
) -> tuple[jobs.ComputedStep, ...]:
    told = await auditing.compared(jobs.compute_steps, jobs.WindowQuery(task, auditing.conditions, first, last), spec)
    return told.answer or ()


async def _operator(
    auditing: audit_runner.AuditJobs, task: jobs.SpanFile, spec: SpanSpec, attempts: list[int]
) -> tuple[OperatorDifference | None, int]:
    """The first operator that gives another output in another process, and how many were compared."""
    counted = 0
    for attempt in attempts:
        query = jobs.StepQuery(task, auditing.conditions, attempt)
        one, other = [(await auditing.compared(jobs.trace_operators, query, spec)).answer or () for _ in range(2)]
        found = first_difference(attempt, one, other)
        counted += len(one)
        if found is not None:
            return found, counted
    return None, counted


def first_difference(attempt: int, one: Trace, other: Trace) -> OperatorDifference | None:
    """The first operator in which two traces of the same attempt differ."""
    for at, (mine, theirs) in enumerate(zip(one, other, strict=False)):
        if mine != theirs:
            module, operator, output = mine
            outputs = [output, theirs[2]]
            return OperatorDifference(attempt=attempt, number=at, module=module, operator=operator, outputs=outputs)
    if len(one) == len(other):
        return None
    at = min(len(one), len(other))
    module, operator, _ = max(one, other, key=len)[at]
    return OperatorDifference(attempt=attempt, number=at, module=module, operator=operator, outputs=[])


def _of_step(found: SpanDivergence) -> str:
    where = f"window {found.first}..{found.last}"
    if found.field == "index_digest":
        return f"{where}: other rows were drawn than the plan says; which step's cannot be told by digest"
    if found.step < 0:
        told = f"{where}: every loss is as recorded, {found.field} is not; "
        return f"{told}the losses cannot tell in which step it came to differ, at the latest in the last"
    before = ""
    if found.step > found.first:
        before = f", so what differs is its way forward or the update of attempt {found.step - 1}"
    return f"{where}: the losses are as recorded up to attempt {found.step}, whose own is not{before}"


def _of_operator(
    shaky: int | None, operator: OperatorDifference | None, counted: int, attempts: list[int]
) -> list[str]:
    if operator is not None:
        where = f" in module {operator.module!r}" if operator.module else ""
        return [f"operator {operator.operator}{where} of attempt {operator.attempt} gave two outputs in two runs here"]
    if shaky is not None:
        return [f"attempt {shaky} gave other bits in another run here, though no traced operator did"]
    told = ", ".join(map(str, attempts))
    return [
        f"all {counted} operators of attempts {told} give the same output twice here: the computation is reproducible",
        "the log's figures are not its result; a log alone holds nothing by which to name an operator of theirs",
    ]


async def _elsewhere(
    auditing: audit_runner.AuditJobs, task: jobs.SpanFile, span: int, found: SpanDivergence
) -> DivergencePlace:
    """What is no window was computed at one step; of a checkpoint that is at hand the tensor can be named."""
    told = f"{found.name} at step {found.last}: all windows of the span up to there came out as recorded"
    about = DivergencePlace(
        span=span, window=[found.first, found.last], field=found.field, step=found.last, sentences=[told]
    )
    blobs = DirectoryBlobs(task.data.blobs)
    if found.name != CheckpointWritten.wire or not found.blob or not blobs.has(found.blob):
        return about
    query = jobs.FileQuery(task, auditing.conditions, found.last, blobs.path(found.blob), "")
    tensor = await auditing.run(jobs.differing_tensor, query)
    differs = f"the first tensor of that checkpoint that differs is {tensor}" if tensor else "its tensors are the same"
    return about.model_copy(update={"tensor": tensor, "sentences": [told, differs]})


async def rebuild_weights(
    subject: AuditSubject, step: int, out: Path, children: Children, *, trust_code: bool
) -> dict[str, Any]:
    """Write the weights after `step` attempts on the path to a safetensors file; `NotVerified` at a divergence.

    `out` is absolute. `Refused` when machine, code or data are not those of the claim: then the bits would be others.
    """
    found, begins = await compute_at_step(
        subject, jobs.rebuild_step_weights, out, children, step=step, trust_code=trust_code
    )
    about = {"weights": str(out), "weights_digest": found.weights_digest, "tensors": found.tensors}
    return about | {"from_step": begins}


async def compute_at_step(
    subject: AuditSubject,
    job: Job[jobs.FileQuery, R, jobs.SpanNews, jobs.GoOn],
    place: Path,
    children: Children,
    *,
    step: int,
    segment: int | None = None,
    trust_code: bool = False,
) -> tuple[R, int]:
    """The answer of a job about a step of the path, or of a segment's line, as above, and where its span begins."""
    history = subject.kept.history
    spans = session_spans(history.facts, history.state, subject.blobs.has).spans
    span = nearest_span(spans, step, history.state.training.segments, segment)
    if span is None:
        raise InvalidInput(
            f"session {history.id} did not reach step {step}; it stands at {history.state.step}.",
            cure=f"Choose a step from {history.state.training.begins} to {history.state.step}.",
            path="--step",
        )
    subject.work.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="replay-", dir=subject.work) as folder:
        options = audit_plan.AuditOptions("full", trust_code=trust_code)
        runner = audit_runner.AuditRunner(subject, options, children, Path(folder), lambda _: None)
        if differing := await runner.compare():
            raise Refused(f"these bits cannot be computed here: {', '.join(differing[:5])}.", cure=_cure(differing))
        task = subject.task(span, runner.folder)
        query = jobs.FileQuery(task, runner.jobs.conditions, step, place, history.id)
        found = await runner.jobs.compared(job, query, subject.spec(span))
    if found.divergence or found.answer is None:
        reason = sentence(found.divergence) if found.divergence else "its job gave no answer"
        message = f"the log does not lead to step {step}: {reason}."
        raise NotVerified(message, cure=f"Find the place: swarm audit {history.id} --mode bisect")
    return found.answer, span.begins


def _cure(differing: list[str]) -> str:
    if any("trust-code" in one for one in differing):
        return "Give --trust-code if you trust the workload that came with the session."
    return "Do it where the session was trained."
