"""What each event says, as one sentence for people.

Where that is its members between words, the words stand in its class (`says`); the others are here, by their class.
"""

from collections.abc import Mapping
from functools import singledispatch
from string import Formatter
from typing import Any

from contracts import checkpoint_keeper as keeper
from contracts import diagnostician, exporter, operator, trainer
from contracts import hyperparameter_specialist as searches
from contracts.common import ChildEnded, HandlerFailed, signal_name
from contracts.data_manager import DatasetPrepared, DatasetRejected
from contracts.errors import count_of
from contracts.event import Event, Unknown
from contracts.ledger import VoidsListed
from contracts.queue import SessionQueued
from contracts.replies import EventReply
from contracts.resource_monitor import (
    AdviceJudged,
    ResourcesAdvised,
    ResourcesAlerted,
    ResourcesMeasured,
    ResourcesSummarised,
)
from contracts.validator import CheckpointValidated
from runtime.views.formatting import (
    duration,
    figures,
    fork_of,
    in_words,
    last_loss,
    levers_in_words,
    one_line,
    short,
    size,
    suggestion,
)
from runtime.views.view import advice_in_words, event_of, judgement_in_words


def sentence(event: Event) -> str:
    """The event in words, without who and when; one not understood is named and nothing is made up about it."""
    return one_line(_said(event))


def plain(time: str, lane: str, event: Event) -> str:
    """One line for pipes and files: time, who, what."""
    return one_line(f"{time[11:19]} {lane}: {sentence(event)}")


def told(line: EventReply) -> str:
    """The same of an event's line, as a swarm or the files of a home give it."""
    return plain(line["time"], line["lane"], event_of(line))


class _Form(Formatter):
    """A form in which `{trials:trial}` is a number with the name of what it counts."""

    def format_field(self, value: Any, format_spec: str) -> str:
        if isinstance(value, int) and len(format_spec) > 1 and format_spec.isalpha():
            return count_of(value, format_spec)
        return str(super().format_field(value, format_spec))


_FORM = _Form()


@singledispatch
def _said(event: Event) -> str:
    # Of the class, so that no text of a stranger is ever taken for a form.
    if form := type(event).saying:
        return _FORM.vformat(form, (), vars(event)).rstrip()
    return _named(event.wire, event.model_dump(mode="json"))


@_said.register
def _(event: Unknown) -> str:
    return _named(event.name, event.data)


def _named(name: str, data: object) -> str:
    flat = data if isinstance(data, Mapping) else {}
    values = ", ".join(f"{key}={value}" for key, value in flat.items() if isinstance(value, str | int | float))
    return f"{name} {values}"[:160].rstrip()


@_said.register
def _(event: trainer.AttemptBisected) -> str:
    if event.problem or not event.rows:
        return f"no row explains steps {event.first + 1}..{event.last}: {event.problem}".removesuffix(": ")
    rows = ", ".join(map(str, event.rows[:20])) + (", ..." if len(event.rows) > 20 else "")
    return f"step {event.step} is sound without training row{'s'[: len(event.rows) - 1]} {rows}"


@_said.register
def _(event: operator.SessionRequested) -> str:
    fork = fork_of(event.fork.parent if event.fork else None)
    asked = f"{event.kind} {event.request.get('name', '')!r} requested by {event.asked_by}"
    return asked + (f": a fork of {fork}" if fork else "")


@_said.register
def _(event: operator.ExportRequested) -> str:
    return f"{event.asked_by} wants {_model(event)} of the {event.checkpoint} checkpoint"


@_said.register
def _(event: operator.ProposalApproved) -> str:
    return f"{event.asked_by} approves a proposal" + (f", which is session {event.session}" if event.session else "")


@_said.register
def _(event: operator.ProposalRejected) -> str:
    return f"{event.asked_by} rejects a proposal: {event.reason}".removesuffix(": ")


@_said.register
def _(event: DatasetPrepared) -> str:
    splits = ", ".join(f"{rows} {name}" for name, rows in event.splits.items())
    findings = f", {count_of(len(event.findings), 'finding')}" if event.findings else ""
    again = "already prepared" if event.reused else "prepared"
    return f"dataset {event.source} {again}: {count_of(event.rows, 'row')} ({splits}){findings}"


@_said.register
def _(event: DatasetRejected) -> str:
    return "data rejected: " + "; ".join(problem.get("message", "") for problem in event.problems)


@_said.register
def _(event: trainer.TrainingClaimed) -> str:
    steps = f", {count_of(event.resolved['steps_total'], 'step')}" if "steps_total" in event.resolved else ""
    since = f" from step {event.resumed_from}" if event.resumed_from else ""
    return f"claimed by {event.worker} (attempt {event.epoch}){since}{steps}"


@_said.register
def _(event: trainer.WindowRecorded) -> str:
    loss = last_loss(event.losses)
    shown = "" if loss is None else f" loss {loss:.4g}"
    return f"steps {event.first + 1}..{event.last}{shown}" + ("" if event.finite else ", not finite")


NO_PATIENCE = -1
"""In place of an evaluation's patience: the session is not to stop early, and there is none to tell of."""


@_said.register
def _(event: trainer.ControlEvaluated) -> str:
    left, stop = event.patience_left, ", stopping early" if event.stop else ""
    # Without patience left a session stops, or was not to stop early.
    patient = left != NO_PATIENCE and (left > 0 or event.stop)
    tail = " (best)" if event.improved else (f" (patience {left})" if patient else "")
    return f"epoch {event.epoch} step {event.step}: {figures(event.values)}{tail}{stop}"


@_said.register
def _(event: trainer.CheckpointWritten) -> str:
    return f"checkpoint of step {event.step} written ({event.reason}, {size(event.bytes)})"


@_said.register
def _(event: trainer.AttemptEnded) -> str:
    spent = ", ".join(f"{seconds:.1f} s {name}" for name, seconds in event.seconds.items() if seconds >= 0.05)
    return f"steps {event.first + 1}..{event.step} took {spent or 'no time'}"


@_said.register
def _(event: trainer.BirthAudited) -> str:
    steps = f"steps {event.first + 1}..{event.last} repeated in a fresh process"
    if not event.difference:
        return f"{steps}: same bits"
    tensor = f"; the first tensor that differs is {event.tensor!r}" if event.tensor else ""
    return f"{steps}: {event.difference} came out otherwise{tensor}"


@_said.register
def _(event: trainer.WindowRechecked) -> str:
    steps = f"steps {event.first + 1}..{event.last} computed again by another process"
    if not event.fields:
        return f"{steps}: same bits"
    stands = ": the record stands, as a third one computed it" if event.upheld else ": a third one does not uphold it"
    return f"{steps}: {event.fields[0]} came out otherwise{stands}"


@_said.register
def _(event: trainer.InterventionApplied) -> str:
    if event.seconds is not None:
        return f"training ends at step {event.step}: {event.seconds:.1f} s are spent, as `limits.seconds` has it"
    return f"segment {event.segment} begins at step {event.step}: {levers_in_words(event.changes)}"


@_said.register
def _(event: trainer.TrainingCompleted) -> str:
    early = " early" if event.stopped_early else ""
    ended = f"training completed{early} after {count_of(event.step, 'step')}"
    if event.best_step in (None, event.step):
        return f"{ended}, best at {event.best_step}: {figures(event.values)}"
    # The event has the figures of the end; those of the best step are in that step's evaluation.
    return f"{ended}: {figures(event.values)}; the best was at step {event.best_step}"


@_said.register
def _(event: trainer.TrainingFailed) -> str:
    where = f" at {event.frame}" if event.frame else ""
    return f"training failed at step {event.step}: {event.message}{where} {event.cure}".rstrip()


@_said.register
def _(event: trainer.TrainingCancelled) -> str:
    return f"cancelled at step {event.step}: {event.reason}".removesuffix(": ")


@_said.register
def _(event: trainer.AuditPlanned) -> str:
    log = f"log of {event.session} verified ({event.log.verdict})"
    if event.machine is None or not event.machine.model_fields_set:
        return f"{log}; nothing is to be computed again"
    exports = f" and {count_of(len(event.exports), 'export')}" if event.exports else ""
    return f"{log}; to be computed again: {len(event.chosen)} of {count_of(len(event.spans), 'span')}{exports}"


@_said.register
def _(event: trainer.SpanRepeated) -> str:
    if event.problem:
        return f"span {event.span} could not be computed: {event.problem}"
    found = event.divergence
    if found is None:
        return f"span {event.span} computed again, {count_of(event.steps, 'step')}: same bits"
    where = f"{found.name} of steps {found.first}..{found.last}"
    return f"span {event.span} DIFFERS: {found.field or 'the account'} in {where}"


@_said.register
def _(event: trainer.AuditDeclined) -> str:
    return f"{event.worker} cannot compute these bits: {', '.join(event.differing[:5])}"


@_said.register
def _(event: trainer.AuditCompleted) -> str:
    found = event.found
    again = f", {found.spans_checked} of {count_of(found.spans_total, 'span')} computed again"
    first = f"; first: {found.first_divergence.message}" if found.first_divergence else ""
    head = f"audit of {event.session} ({event.mode}): {event.verdict.upper()}"
    return f"{head}{again if 'seed' in found.model_fields_set else ''}{first}"


@_said.register
def _(event: keeper.CheckpointStored) -> str:
    kept = f", kept as {', '.join(event.kept_as)}" if event.kept_as else ""
    return f"checkpoint of step {event.step} verified{kept}"


@_said.register
def _(event: keeper.CheckpointPruned) -> str:
    return f"checkpoint of step {event.step} let go ({size(event.freed_bytes)} freed)"


@_said.register
def _(event: CheckpointValidated) -> str:
    judged = f"step {event.step} on {count_of(event.rows, f'{event.split} row')}: {figures(event.metrics)}"
    # The test rows are met here alone: there is nothing to reproduce.
    return judged if event.split == "test" else f"{judged}; control metric {event.control}"


@_said.register
def _(event: diagnostician.InterventionProposed) -> str:
    back = f"rewind to {event.rewind_to}, " if event.rewind_to is not None else ""
    what = f"another training with {in_words(event.set)}" if event.set else levers_in_words(event.changes)
    return f"proposes{', and waits for a person' if event.waits else ''}: {back}{what} ({event.reason})"


@_said.register
def _(event: diagnostician.AdvisorAnswered) -> str:
    chose = f"the advisor chose {event.action}" + (f" ({event.value:g})" if event.value is not None else "")
    cost = f"{event.calls} calls, {event.prompt_tokens + event.completion_tokens} tokens, {event.seconds:.1f} s"
    match event.outcome:
        case "failed":
            return f"the advisor gave no answer: {event.error or event.reason} ({cost})"
        case "refused":
            return f"{chose}; refused: {event.reason} ({cost})"
        case "agreed":
            return f"{chose}, which is proposed already ({cost})"
        case "kept":
            return f"the advisor would change nothing ({cost})"
    return f"{chose}, which is proposed ({cost})"


@_said.register
def _(event: diagnostician.OutcomeJudged) -> str:
    return f"the change {'helped' if event.helped else 'did not help'}: {event.message}"


_VERDICTS = {
    "better": "the intervention made it better",
    "worse": "the intervention made it worse",
    "no difference": "the intervention made no difference",
}


@_said.register
def _(event: diagnostician.InterventionProven) -> str:
    ours, theirs = ("-" if value is None else short(value) for value in (event.with_value, event.without_value))
    again = f"{count_of(event.reproduced, 'window')} of the parent came out again"
    wrong = f", {event.differing} DIFFER" if event.differing else ""
    return f"{_VERDICTS[event.verdict]}: {event.metric} {ours} with it, {theirs} without; {again}{wrong}"


def _model(event: operator.ExportRequested | exporter.ExportRefused | exporter.ModelExported) -> str:
    return event.format + (f"/{event.quantize}" if event.quantize else "")


@_said.register
def _(event: exporter.ModelExported) -> str:
    error = event.parity.get("max_abs")
    rows = count_of(event.rows_compared, "row")
    parity = f", largest difference {short(error)} over {rows}" if error is not None else ""
    return f"model exported as {_model(event)}: {event.filename} ({size(event.bytes)}){parity}"


@_said.register
def _(event: exporter.ExportRefused) -> str:
    return f"export as {_model(event)} refused: {event.message} {event.cure}".rstrip()


@_said.register
def _(event: exporter.ExportRepeated) -> str:
    if event.problem:
        return f"{event.filename} could not be made again: {event.problem}"
    return event.divergence or f"{event.filename} made again, byte for byte the same"


@_said.register
def _(event: exporter.ModelBenchmarked) -> str:
    form = event.format + (f"/{event.quantize}" if event.quantize else "")
    return f"{form}: {event.median_ms:.3g} ms per batch of {event.batch}"


@_said.register
def _(event: searches.LearningRateSuggested) -> str:
    return f"suggests a learning rate of {suggestion(event.suggestion, event.steepest, event.diverged_at)}"


@_said.register
def _(event: searches.TrialStarted) -> str:
    if event.same_as is not None:
        return f"trial {event.number} is trial {event.same_as} again and is not trained: {in_words(event.parameters)}"
    more = f" and {len(event.sessions) - 1} more with other seeds" if event.sessions else ""
    return f"trial {event.number} is session {event.session}{more}: {in_words(event.parameters)}"


@_said.register
def _(event: searches.TrialFinished) -> str:
    value = in_words(event.values) if event.values else "" if event.value is None else short(event.value)
    if value and event.spread:
        over = count_of(len(event.seeds), "seed")
        value += f" over {over} (± {', '.join(map(short, event.spread.values()))})"
    cost = f" after {count_of(event.epochs, 'epoch')}" if event.epochs else ""
    return f"trial {event.number} {event.state}" + (f": {value}" if value else "") + cost


@_said.register
def _(event: searches.TrialMeasured) -> str:
    kept = "keeps to its constraints" if event.feasible else "is infeasible"
    told = [measure for measure in event.measures if event.feasible or measure.excess > 0]
    return f"trial {event.number} {kept}: {'; '.join(measure.words for measure in told)}"


@_said.register
def _(event: searches.TrialPaused) -> str:
    value = f": {short(event.value)}" if event.value is not None else ""
    return f"trial {event.number} waits after {count_of(event.epochs, 'epoch')}{value}"


@_said.register
def _(event: searches.RungDecided) -> str:
    go_on = f"trials {', '.join(map(str, event.kept))} go on" if event.kept else "no trial goes on"
    return f"after {count_of(event.epochs, 'epoch')} {go_on}, {len(event.stopped)} stop"


@_said.register
def _(event: searches.GenerationDecided) -> str:
    copies = [f"member {copy.member} goes on from trial {copy.trial} as trial {copy.number}" for copy in event.copies]
    return f"after {count_of(event.epochs, 'epoch')} {', '.join(copies) or 'no member copies another'}"


@_said.register
def _(event: searches.LineageTraced) -> str:
    begins = [f"from step {stage.step} trial {stage.number} ({in_words(stage.parameters)})" for stage in event.stages]
    return f"the best member's lineage: {', '.join(begins)}"


@_said.register
def _(event: searches.SearchCompleted) -> str:
    if event.best_value is None and event.front:
        better = f"{count_of(len(event.front), 'trial')} than which none is better in all objectives"
        return f"search completed after {count_of(event.trials, 'trial')}, with {better}"
    if event.best_value is None and event.best_parameters:
        return f"range test completed, suggests {in_words(event.best_parameters)}"
    if event.best_value is None:
        return f"search completed after {count_of(event.trials, 'trial')}, none of which has a value"
    best = f"best {short(event.best_value)} (trial {event.best_number}: {in_words(event.best_parameters)})"
    return f"search completed after {count_of(event.trials, 'trial')}, {best}"


@_said.register
def _(event: ResourcesSummarised) -> str:
    return (
        f"{event.seconds:.0f} s, the whole machine at {event.cpu_percent_mean:.0f} % CPU"
        f" and up to {size(event.memory_bytes_max)} of memory"
    )


@_said.register
def _(event: ResourcesAlerted) -> str:
    resource = event.resource
    in_bytes, unit = resource in ("disk", "store"), "°C" if resource == "gpu_temperature" else "%"
    figures = (event.value, event.threshold)
    value, threshold = (size(figure) if in_bytes else f"{figure:.4g} {unit}" for figure in figures)
    side = "below" if resource == "disk" else "above"
    if resource == "gpu_errors":
        return f"{event.level}: {count_of(int(event.value), 'error')} of GPUs. {event.advice}"
    whose = "" if event.swarm is None else f" (the swarm takes {event.swarm:.4g} {unit})"
    return f"{event.level}: {_RESOURCES.get(resource, resource)} at {value}{whose}, {side} {threshold}. {event.advice}"


_RESOURCES = {
    "disk": "free disk space",
    "disk_io": "time waiting for disks",
    "gpu_memory": "GPU memory",
    "gpu_temperature": "GPU temperature",
    "gpu_throttled": "GPUs held down",
}


@_said.register
def _(event: ResourcesMeasured) -> str:
    first, last = event.epoch - event.epochs + 1, event.epoch
    which = f"epochs {first}..{last}" if first < last else f"epoch {last}"
    gpu = "" if event.gpu_percent is None else f", GPU {event.gpu_percent:.0f} %"
    energy = "" if event.joules is None else f", {event.joules:.0f} J"
    own = f"at {event.session_cpu_percent:.0f} % of a core and {size(event.session_memory_bytes)}"
    if not event.session_memory_bytes:
        own = "over before a sample was taken of it"
    return (
        f"{which} in {duration(event.seconds)}: the machine at {event.cpu_percent:.0f} % CPU,"
        f" this session {own}{gpu}{energy}"
    )


@_said.register
def _(event: ResourcesAdvised) -> str:
    return advice_in_words(event)


@_said.register
def _(event: AdviceJudged) -> str:
    return judgement_in_words(event)


@_said.register
def _(event: VoidsListed) -> str:
    return f"{len(event.voids)} stored messages are not facts"


@_said.register
def _(event: SessionQueued) -> str:
    return f"{event.session} waits for a slot{' to go on' if event.begun else ''}"


@_said.register
def _(event: HandlerFailed) -> str:
    cure = "" if event.cure in event.error else event.cure
    times = count_of(event.attempts, "time")
    return f"{event.role}.{event.handler} failed {times}: {event.error} {cure}".rstrip()


@_said.register
def _(event: ChildEnded) -> str:
    name = signal_name(event.signal) if event.signal else ""
    by = f" by {name}" if name not in event.message else ""
    return f"the {event.purpose} process ended{by} without its answer: {event.message}"
