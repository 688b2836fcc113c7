"""What each event says, as one sentence for people: a pure function of a line that `view.event_line` makes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from contracts.errors import count_of
from runtime.views.formatting import (
    figures,
    fork_of,
    in_words,
    last_loss,
    levers_in_words,
    number,
    one_line,
    short,
    size,
    suggestion,
)

Data = Mapping[str, Any]


def sentence(line: Data) -> str:
    """The event in words, without who and when; one not understood is named and nothing is made up about it."""
    teller = _TELLERS.get(line["name"]) if line.get("understood", True) else None
    if teller is None:
        return _unknown(line["name"], line["data"])
    return one_line(teller(line["data"]))


def plain(line: Data) -> str:
    """One line for pipes and files: time, who, what."""
    clock = str(line["time"])[11:19]
    return one_line(f"{clock} {line['lane']}: {sentence(line)}")


def _unknown(name: str, data: Any) -> str:
    flat = data if isinstance(data, Mapping) else {}
    values = ", ".join(f"{key}={value}" for key, value in flat.items() if isinstance(value, str | int | float))
    return one_line(f"{name} {values}"[:160].rstrip())


def _model(data: Data) -> str:
    return str(data["format"]) + (f"/{data['quantize']}" if data["quantize"] else "")


def _requested(data: Data) -> str:
    name, fork = data["request"].get("name", ""), fork_of(data.get("fork"))
    return f"{data['kind']} {name!r} requested by {data['asked_by']}" + (f": a fork of {fork}" if fork else "")


def _prepared(data: Data) -> str:
    splits = ", ".join(f"{rows} {name}" for name, rows in data["splits"].items())
    findings = f", {count_of(len(data['findings']), 'finding')}" if data["findings"] else ""
    again = "already prepared" if data["reused"] else "prepared"
    return f"dataset {data['source']} {again}: {count_of(data['rows'], 'row')} ({splits}){findings}"


def _claimed(data: Data) -> str:
    resolved = data["resolved"]
    steps = f", {count_of(resolved['steps_total'], 'step')}" if "steps_total" in resolved else ""
    since = f" from step {data['resumed_from']}" if data["resumed_from"] else ""
    return f"claimed by {data['worker']} (attempt {data['epoch']}){since}{steps}"


def _window(data: Data) -> str:
    loss = last_loss(data)
    shown = "" if loss is None else f" loss {loss:.4g}"
    return f"steps {data['first'] + 1}..{data['last']}{shown}" + ("" if data["finite"] else ", not finite")


def _evaluated(data: Data) -> str:
    left = data["patience_left"]
    # Without patience left a session stops, or was not to stop early: then there is no patience to tell of.
    patient = left is not None and (left > 0 or data["stop"])
    tail = " (best)" if data["improved"] else (f" (patience {left})" if patient else "")
    stop = ", stopping early" if data["stop"] else ""
    return f"epoch {data['epoch']} step {data['step']}: {figures(data['values'])}{tail}{stop}"


def _alert(data: Data) -> str:
    resource = data["resource"]
    in_bytes, unit = resource in ("disk", "store"), "°C" if resource == "gpu_temperature" else "%"
    figures = (number(data["value"]), number(data["threshold"]))
    value, threshold = (size(figure) if in_bytes else f"{figure:.4g} {unit}" for figure in figures)
    side = "below" if resource == "disk" else "above"
    return f"{data['level']}: {_RESOURCES.get(resource, resource)} at {value}, {side} {threshold}. {data['advice']}"


_RESOURCES = {"disk": "free disk space", "gpu_memory": "GPU memory", "gpu_temperature": "GPU temperature"}


def _completed(data: Data) -> str:
    early = " early" if data["stopped_early"] else ""
    ended = f"training completed{early} after {count_of(data['step'], 'step')}"
    if data["best_step"] in (None, data["step"]):
        return f"{ended}, best at {data['best_step']}: {figures(data['values'])}"
    # The event has the figures of the end; those of the best step are in that step's evaluation.
    return f"{ended}: {figures(data['values'])}; the best was at step {data['best_step']}"


def _failure(data: Data) -> str:
    where = f" at {data['frame']}" if data.get("frame") else ""
    return f"training failed at step {data['step']}: {data['message']}{where} {data['cure']}".rstrip()


def _exported(data: Data) -> str:
    error = data["parity"].get("max_abs")
    rows = count_of(data["rows_compared"], "row")
    parity = f", largest difference {short(error)} over {rows}" if error is not None else ""
    return f"model exported as {_model(data)}: {data['filename']} ({size(data['bytes'])}){parity}"


def _trial(data: Data) -> str:
    value = data["value"]
    return f"trial {data['number']} {data['state']}" + (f": {short(value)}" if value is not None else "")


def _searched(data: Data) -> str:
    if data["best_value"] is None and data["best_parameters"]:
        return f"range test completed, suggests {in_words(data['best_parameters'])}"
    if data["best_value"] is None:
        return f"search completed after {count_of(data['trials'], 'trial')}, none of which has a value"
    best = f"best {short(data['best_value'])} (trial {data['best_number']}: {in_words(data['best_parameters'])})"
    return f"search completed after {count_of(data['trials'], 'trial')}, {best}"


def _handler(data: Data) -> str:
    cure = "" if data["cure"] in data["error"] else data["cure"]
    times = count_of(data["attempts"], "time")
    return f"{data['role']}.{data['handler']} failed {times}: {data['error']} {cure}".rstrip()


def _divergence(data: Data) -> str:
    return f"DIVERGENCE in steps {data['first']}..{data['last']}: {data['field']} differs from the record"


def _birth(data: Data) -> str:
    steps = f"steps {data['first'] + 1}..{data['last']} repeated in a fresh process"
    if not data["difference"]:
        return f"{steps}: same bits"
    tensor = f"; the first tensor that differs is {data['tensor']!r}" if data["tensor"] else ""
    return f"{steps}: {data['difference']} came out otherwise{tensor}"


def _validated(data: Data) -> str:
    rows = count_of(data["rows"], f"{data['split']} row")
    judged = f"step {data['step']} on {rows}: {figures(data['metrics'])}"
    # The test rows are met here alone: there is nothing to reproduce.
    return judged if data["split"] == "test" else f"{judged}; control metric {data['control']}"


def _child(data: Data) -> str:
    # Late, because pages of help load no schemas.
    from contracts.common import signal_name

    name = signal_name(data["signal"]) if data["signal"] else ""
    by = f" by {name}" if name not in data["message"] else ""
    return f"the {data['purpose']} process ended{by} without its answer: {data['message']}"


_VERDICTS = {
    "better": "the intervention made it better",
    "worse": "the intervention made it worse",
    "no difference": "the intervention made no difference",
}


def _proven(data: Data) -> str:
    ours, theirs = ("-" if data[side] is None else short(data[side]) for side in ("with_value", "without_value"))
    again = f"{count_of(data['reproduced'], 'window')} of the parent came out again"
    wrong = f", {data['differing']} DIFFER" if data["differing"] else ""
    return f"{_VERDICTS[data['verdict']]}: {data['metric']} {ours} with it, {theirs} without; {again}{wrong}"


def _proposed(data: Data) -> str:
    back = f"rewind to {data['rewind_to']}, " if data["rewind_to"] is not None else ""
    what = f"another training with {in_words(data['set'])}" if data["set"] else levers_in_words(data["changes"])
    return f"proposes{', and waits for a person' if data['waits'] else ''}: {back}{what} ({data['reason']})"


def _approved(data: Data) -> str:
    begun = f", which is session {data['session']}" if data["session"] else ""
    return f"{data['asked_by']} approves a proposal{begun}"


def _attempt(data: Data) -> str:
    spent = ", ".join(f"{seconds:.1f} s {name}" for name, seconds in data["seconds"].items() if seconds >= 0.05)
    return f"steps {data['first'] + 1}..{data['step']} took {spent or 'no time'}"


def _resources(data: Data) -> str:
    return (
        f"{data['seconds']:.0f} s, the whole machine at {data['cpu_percent_mean']:.0f} % CPU"
        f" and up to {size(data['memory_bytes_max'])} of memory"
    )


def _measured(data: Data) -> str:
    first, last = data["epoch"] - data["epochs"] + 1, data["epoch"]
    which = f"epochs {first}..{last}" if first < last else f"epoch {last}"
    gpu = "" if data["gpu_percent"] is None else f", GPU {data['gpu_percent']:.0f} %"
    energy = "" if data["joules"] is None else f", {data['joules']:.0f} J"
    return (
        f"{which} in {data['seconds']:.0f} s: the machine at {data['cpu_percent']:.0f} % CPU, this session at"
        f" {data['session_cpu_percent']:.0f} % of a core and {size(data['session_memory_bytes'])}{gpu}{energy}"
    )


def _planned(data: Data) -> str:
    log = f"log of {data['session']} verified ({data['log'].get('verdict')})"
    if not data["machine"]:
        return f"{log}; nothing is to be computed again"
    exports = f" and {count_of(len(data['exports']), 'export')}" if data["exports"] else ""
    spans = count_of(len(data["spans"]), "span")
    return f"{log}; to be computed again: {len(data['chosen'])} of {spans}{exports}"


def _span(data: Data) -> str:
    if data["problem"]:
        return f"span {data['span']} could not be computed: {data['problem']}"
    divergence = data["divergence"]
    if divergence is None:
        return f"span {data['span']} computed again, {count_of(data['steps'], 'step')}: same bits"
    where = f"{divergence['name']} of steps {divergence['first']}..{divergence['last']}"
    return f"span {data['span']} DIFFERS: {divergence['field'] or 'the account'} in {where}"


def _export_again(data: Data) -> str:
    if data["problem"]:
        return f"{data['filename']} could not be made again: {data['problem']}"
    return data["divergence"] or f"{data['filename']} made again, byte for byte the same"


def _audited(data: Data) -> str:
    verdict = data["found"]
    computed = (
        f", {verdict['spans_checked']} of {count_of(verdict['spans_total'], 'span')} computed again"
        if "seed" in verdict
        else ""
    )
    first = f"; first: {verdict['first_divergence']['message']}" if verdict.get("first_divergence") else ""
    return f"audit of {data['session']} ({data['mode']}): {data['verdict'].upper()}{computed}{first}"


_TELLERS: dict[str, Callable[[Data], str]] = {
    "session.requested": _requested,
    "cancel.requested": lambda d: f"{d['asked_by']} wants it cancelled",
    "pause.requested": lambda d: f"{d['asked_by']} wants it paused",
    "resume.requested": lambda d: f"{d['asked_by']} wants it resumed",
    "export.requested": lambda d: f"{d['asked_by']} wants {_model(d)} of the {d['checkpoint']} checkpoint",
    "proposal.approved": _approved,
    "proposal.rejected": lambda d: f"{d['asked_by']} rejects a proposal: {d['reason']}".removesuffix(": "),
    "redrive.requested": lambda d: f"{d['asked_by']} wants a failure tried again",
    "dataset.prepared": _prepared,
    "dataset.rejected": lambda d: "data rejected: " + "; ".join(p.get("message", "") for p in d["problems"]),
    "training.claimed": _claimed,
    "window.recorded": _window,
    "control.evaluated": _evaluated,
    "checkpoint.written": lambda d: f"checkpoint of step {d['step']} written ({d['reason']}, {size(d['bytes'])})",
    "checkpoint.stored": lambda d: (
        f"checkpoint of step {d['step']} verified" + (f", kept as {', '.join(d['kept_as'])}" if d["kept_as"] else "")
    ),
    "checkpoint.promoted": lambda d: f"checkpoint of step {d['step']} is the best",
    "checkpoint.pruned": lambda d: f"checkpoint of step {d['step']} let go ({size(d['freed_bytes'])} freed)",
    "checkpoint.corrupt": lambda d: f"checkpoint of step {d['step']} is CORRUPT: {d['reason']}",
    "checkpoint.validated": _validated,
    "validation.failed": lambda d: f"step {d['step']} could not be judged: {d['message']}",
    "problem.diagnosed": lambda d: (
        f"{d['severity']}: {d['message']} (steps {d['first']}..{d['last']}) {d['cure']}".rstrip()
    ),
    "intervention.proposed": _proposed,
    "intervention.applied": lambda d: (
        f"segment {d['segment']} begins at step {d['step']}: {levers_in_words(d['changes'])}"
    ),
    "intervention.declined": lambda d: f"proposal declined: {d['reason']}",
    "diagnosis.reached": lambda d: f"every rule has seen the steps up to {d['step']}",
    "outcome.judged": lambda d: f"the change {'helped' if d['helped'] else 'did not help'}: {d['message']}",
    "proof.requested": lambda d: f"what the intervention was worth is shown by session {d['session']}",
    "proof.forked": lambda d: f"goes on from step {d['step']} with it as {d['with_it']}, without as {d['without_it']}",
    "intervention.proven": _proven,
    "proof.failed": lambda d: f"nothing could be shown: {d['message']} {d['cure']}".rstrip(),
    "judgement.waived": lambda d: f"no diagnostician judged the steps up to {d['step']}",
    "checkpoint.refused": lambda d: (
        f"cannot begin from the checkpoint of step {d['step']} ({d['reason']}): goes on from step {d['instead']}"
    ),
    "attempt.ended": _attempt,
    "windows.reproduced": lambda d: f"{d['count']} recorded windows computed again, same bits",
    "divergence.found": _divergence,
    "birth.audited": _birth,
    "training.paused": lambda d: f"paused at step {d['step']} ({d['by']})",
    "training.resumed": lambda d: f"resumed at step {d['step']}",
    "training.completed": _completed,
    "training.failed": _failure,
    "training.cancelled": lambda d: f"cancelled at step {d['step']}: {d['reason']}".removesuffix(": "),
    "audit.planned": _planned,
    "span.taken": lambda d: f"span {d['span']} is computed by {d['worker']}",
    "span.repeated": _span,
    "audit.declined": lambda d: f"{d['worker']} cannot compute these bits: {', '.join(d['differing'][:5])}",
    "audit.completed": _audited,
    "audit.failed": lambda d: f"audit without a verdict: {d['message']} {d['cure']}".rstrip(),
    "export.repeated": _export_again,
    "model.exported": _exported,
    "export.refused": lambda d: f"export as {_model(d)} refused: {d['message']} {d['cure']}".rstrip(),
    "model.benchmarked": lambda d: f"{_model(d)}: {d['median_ms']:.3g} ms per batch of {d['batch']}",
    "learning_rate.suggested": lambda d: f"suggests a learning rate of {suggestion(d)}",
    "trial.started": lambda d: f"trial {d['number']} is session {d['session']}: {in_words(d['parameters'])}",
    "trial.finished": _trial,
    "search.completed": _searched,
    "search.cancelled": lambda d: f"search cancelled after {count_of(d['trials'], 'trial')}: {d['reason']}",
    "search.failed": lambda d: f"search failed: {d['message']} {d['cure']}".rstrip(),
    "resources.summarised": _resources,
    "resources.alerted": _alert,
    "resources.measured": _measured,
    "ledger.checkpointed": lambda d: f"tree over {count_of(d['size'], 'event')} signed",
    "duty.waived": lambda d: f"{d['role']} did not answer for {d['silent_seconds']:.0f} s: {d['duty']} waived",
    "voids.listed": lambda d: f"{len(d['voids'])} stored messages are not facts",
    "session.sealed": lambda d: f"sealed over {count_of(d['size'], 'event')}, root {d['root'][:16]}",
    "handler.failed": _handler,
    "child.ended": _child,
    "keyring.opened": lambda d: f"keyring of {d['deployment']} opened",
    "key.admitted": lambda d: f"key of {d['role']} admitted",
    "key.rotated": lambda d: f"key of {d['role']} rotated",
    "key.revoked": lambda d: f"key {d['key']} revoked: {d['reason']}",
    "queue.opened": lambda d: "queue opened",
    "queue.limited": lambda d: f"{count_of(d['limit'], 'session')} may train at once",
    "session.queued": lambda d: f"{d['session']} waits for a slot{' to go on' if d['begun'] else ''}",
    "session.granted": lambda d: f"{d['session']} has a slot",
    "session.returned": lambda d: f"{d['session']} gives its slot back: {d['reason']}",
    "session.withdrawn": lambda d: f"{d['session']} waits no more: {d['reason']}",
    "queue.closed": lambda d: "queue closed; the next one goes on",
}
