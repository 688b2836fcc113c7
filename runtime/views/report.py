"""What a session leaves for people to read: derived from its log, written beside it, made again whenever it is lost.

The page of Markdown is a pure function of the session's facts; `main` writes it with its files in a niced child.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
import yaml

from contracts.envelope import Fact
from contracts.session import SessionState
from runtime.home.home import Home
from runtime.jobs.job import Job
from runtime.log import retention
from runtime.log.archive import Archive
from runtime.log.session_log import SessionLog
from runtime.views import curves, view
from runtime.views.formatting import fork_of, in_words, number, short, size, suggestion
from runtime.views.sentences import sentence

JOB = "runtime.views.report:main"
"""What writes the files of one session, in a child."""
NICE = 15


def main(job: Job) -> dict[str, Any]:
    """The path of the report. The text is written first; a plot that cannot be drawn is left out and named."""
    os.nice(NICE)
    home = Home(Path(job.args["home"]))
    history = Archive(home, job.args["root"]).read(job.args["session"]).history
    folder = home.session(history.id)
    state, facts = history.state, history.facts
    table, seconds = curves.rows(state, facts), curves.seconds(facts)
    _write(folder / "request.yaml", yaml.safe_dump(state.request, sort_keys=False, allow_unicode=True).encode())
    _write(folder / "metrics.json", orjson.dumps(_metrics(history, table, seconds), option=orjson.OPT_INDENT_2))
    _write(folder / "report.md", page(state, facts, ()).encode())
    drawn, problem = _draw(folder / "plots", state, table, seconds)
    _write(folder / "report.md", page(state, facts, drawn).encode())
    return {"path": str(folder / "report.md"), "plots": drawn, "problem": problem}


def _metrics(history: SessionLog, table: list[curves.Row], seconds: Mapping[str, float]) -> dict[str, Any]:
    summary = view.summary(history.state)
    kept = ("session", "name", "kind", "state", "step", "steps_total", "epoch", "weights_digest", "sealed", "wall_s")
    about = {name: summary[name] for name in kept} | {"metrics": summary["metrics"], "seconds": dict(seconds)}
    about |= {name: summary[name] for name in ("best_trial", "range_test") if summary[name] is not None}
    figures: dict[str, Any] = _plain(about | {"columns": curves.columns(table), "rows": table})
    return figures


def _draw(
    folder: Path, state: SessionState, table: list[curves.Row], seconds: Mapping[str, float]
) -> tuple[list[str], str]:
    """The plots that could be drawn, and why the others could not: words are worth having without pictures."""
    drawn: list[str] = []
    try:
        from runtime.views import plots

        begins, tried = [segment.begins for segment in state.segments[1:]], view.range_test(state)
        for name, draw in plots.plots(table, seconds, begins, tried).items():
            folder.mkdir(exist_ok=True)
            fresh = folder / f".{name}.{os.getpid()}.png"
            plots.save(draw, name, fresh)
            fresh.replace(folder / f"{name}.png")
            drawn.append(name)
    except Exception as error:  # noqa: BLE001 - whatever a plotting library raises, the report stands
        return drawn, f"{type(error).__name__}: {error}"
    return drawn, ""


def _write(path: Path, content: bytes) -> None:
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.write_bytes(content)
    fresh.replace(path)


def _plain(value: Any) -> Any:
    """JSON has no numbers that are not finite: they are null, as the log has their bits."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value


PLOTS = {
    "loss": "Loss",
    "metrics": "Metrics",
    "learning_rate": "Learning rate",
    "gradient_norm": "Gradient norm",
    "range_test": "Loss at each learning rate that was tried",
    "time": "Where the time of training went",
}
"""Every plot that may be written beside the page, by file name, and what it shows."""

DECISIONS = (
    "problem.diagnosed",
    "intervention.proposed",
    "intervention.applied",
    "intervention.declined",
    "outcome.judged",
    "judgement.waived",
    "pause.requested",
    "training.paused",
    "training.resumed",
    "cancel.requested",
    "learning_rate.suggested",
)
TROUBLE = (
    "training.failed",
    "training.cancelled",
    "dataset.rejected",
    "child.ended",
    "handler.failed",
    "divergence.found",
    "checkpoint.refused",
    "checkpoint.corrupt",
    "validation.failed",
    "export.refused",
    "resources.alerted",
    "duty.waived",
    "search.cancelled",
    "search.failed",
)
NO_DECISION = "Nothing was diagnosed and nobody intervened."

EVALUATIONS = 12
"""Evaluations that are listed: the last ones, and the best."""

RATES = 25
"""Rates of a range test that are listed, of as many as were tried."""


def page(session: SessionState, facts: Sequence[Fact], plots: Iterable[str]) -> str:
    """The whole report; only the plots named are linked."""
    summary = view.summary(session)
    seconds = sorted(curves.seconds(facts).items(), key=lambda part: -part[1])
    total = sum(spent for _, spent in seconds)
    times = [(name, f"{spent:.2f} s", f"{spent / total:.0%}") for name, spent in seconds if total]
    parts = [
        f"# {_inline(summary['name'] or summary['kind'])}\n\n`{session.id}`, requested {session.requested_at[:19]}Z",
        _table(("", ""), _facts(session, summary)),
        _section("Figures", _table(("metric", "value"), [(n, f"{v:.6g}") for n, v in summary["metrics"].items()])),
        _section("Plots", "\n\n".join(f"![{PLOTS[name]}](plots/{name}.png)" for name in PLOTS if name in set(plots))),
        _section("Evaluations", _evaluations(session)),
        _section("Where the time of training went", _table(("in", "time", "share"), times)),
        _section("Data", _data(session)),
        _section("Decisions and diagnoses", _told(facts, DECISIONS) or (NO_DECISION if session.claim else "")),
        _section("Trouble", _told(facts, TROUBLE)),
        _section("Range test", _range_test(summary["range_test"])),
        *(_section(title, tell(session)) for title, tell in LAST_SECTIONS.items()),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _facts(session: SessionState, summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    claim, best = session.claim, session.best
    environment = ", ".join(f"{name} {value}" for name, value in claim.environment.items() if value) if claim else ""
    problem = summary["problem"]
    trial = summary["best_trial"]
    rows = [
        ("state", summary["state"]),
        ("fork of", fork_of(summary["fork"])),
        ("problem", f"{problem['message']} {problem['cure']}" if problem else ""),
        (
            "steps",
            f"{summary['step']} of {summary['steps_total']}, epoch {summary['epoch']}"
            if summary["steps_total"]
            else "",
        ),
        ("segments", str(summary["segments"]) if summary["segments"] > 1 else ""),
        ("best", f"step {best.step}: {best.metric} {short(best.values[best.metric])}" if best else ""),
        ("best trial", f"{trial['number']}: {in_words(trial['parameters'])}, `{trial['session']}`" if trial else ""),
        ("wall time", f"{summary['wall_s']:.1f} s, {summary['events']} events"),
        ("weights", f"`{summary['weights_digest']}`" if summary["weights_digest"] else ""),
        ("sealed root", f"`{summary['sealed']}`" if summary["sealed"] else "not sealed yet"),
        ("trained by", f"{claim.worker} (attempt {claim.epoch}), {environment}" if claim else ""),
        ("resources", sentence(_line("resources.summarised", session.resources)) if session.resources else ""),
    ]
    return [(name, value) for name, value in rows if value]


def _evaluations(session: SessionState) -> str:
    listed = [evaluation for evaluation in session.evaluations if evaluation is session.best] + list(
        session.evaluations[-EVALUATIONS:]
    )
    by_step = {evaluation.step: evaluation for evaluation in listed}
    names = list(dict.fromkeys(name for evaluation in by_step.values() for name in evaluation.values))
    rows = [
        (
            f"{step}{' (best)' if evaluation is session.best else ''}",
            str(evaluation.epoch),
            *_values(evaluation.values, names),
        )
        for step, evaluation in sorted(by_step.items())
    ]
    return _table(("step", "epoch", *names), rows)


def _values(values: Mapping[str, float], names: Sequence[str]) -> list[str]:
    return [short(values[name]) if name in values else "" for name in names]


def _data(session: SessionState) -> str:
    ready = session.dataset
    if ready is None:
        return ""
    splits = ", ".join(f"{rows} {name}" for name, rows in ready.splits.items())
    rows = [("source", ready.source), ("rows", f"{ready.rows} ({splits})"), ("root", f"`{ready.root}`")]
    findings = [
        (f"{finding.severity}: {finding.kind}", f"{finding.count} ({', '.join(finding.where[:3])})")
        for finding in ready.findings
    ]
    return _table(("", ""), [*rows, *findings])


def _told(facts: Iterable[Fact], names: Sequence[str]) -> str:
    lines = (view.event_line(fact) for fact in facts if fact.name in names)
    told = [f"- {line['time'][11:19]} **{line['lane']}**: {_inline(sentence(line))}" for line in lines]
    return "\n".join(told)


def _trials(session: SessionState) -> str:
    parameters = {trial.number: in_words(trial.parameters) for trial in session.trials}
    rows = [
        (
            str(trial.number),
            trial.state,
            "" if trial.value is None else short(trial.value),
            parameters.get(trial.number, ""),
            f"`{trial.session}`" if trial.session else "",
        )
        for trial in session.finished_trials
    ]
    return _table(("trial", "state", "value", "parameters", "session"), rows)


def _range_test(test: Mapping[str, Any] | None) -> str:
    """The suggestion, and some of the rates that were tried: every so many, with the last."""
    if test is None:
        return ""
    tried = list(zip(test["rates"], test["losses"], strict=False))
    some = tried[:: math.ceil(len(tried) / RATES) or 1]
    rows = [(short(rate), "not finite" if loss is None else short(loss)) for rate, loss in some]
    return f"Suggests a learning rate of {suggestion(test)}.\n\n" + _table(("learning rate", "loss"), rows)


def _checkpoints(session: SessionState) -> str:
    kept_as = retention.roles(session)
    kept = {
        retention.place(checkpoint): checkpoint.written
        for checkpoint in session.path_checkpoints()
        if checkpoint.usable
    }
    rows = [
        (str(checkpoint.step), ", ".join(kept_as.get(place, [])), size(checkpoint.bytes), f"`{checkpoint.blob}`")
        for place, checkpoint in kept.items()
    ]
    return _table(("step", "kept as", "size", "blob"), rows)


def _artifacts(session: SessionState) -> str:
    rows = []
    for _, made in session.exports:
        form = made.format + (f"/{made.quantize}" if made.quantize else "")
        parity = f"{number(made.parity['max_abs']):.3g} over {made.rows_compared} rows" if made.parity else ""
        rows.append((form, f"exports/{made.filename}", size(made.bytes), parity, f"`{made.blob}`"))
    return _table(("format", "file", "size", "largest difference", "blob"), rows)


def _audit(session: SessionState) -> str:
    lines = [
        f"    swarm audit {session.id}      every event signed, chained and in the sealed tree",
        f"    swarm replay {session.id}     the state at any event, folded from the log",
    ]
    if session.claim:
        lines.append("    swarm run request.yaml    the same request, for the same weights on the same fingerprint")
        lines.append(f"\nFingerprint `{session.claim.fingerprint}`, engine bits {session.claim.engine_bits}.")
    return "\n".join(lines)


LAST_SECTIONS: dict[str, Callable[[SessionState], str]] = {
    "Trials": _trials,
    "Checkpoints": _checkpoints,
    "Artifacts": _artifacts,
    "How to check this": _audit,
}
"""By title: sections of the session alone, in their order at the end of the page."""


def _line(name: str, event: Any) -> dict[str, Any]:
    return {"name": name, "data": view.data_of(event)}


def _section(title: str, body: str) -> str:
    return f"## {title}\n\n{body}" if body else ""


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(_inline(str(cell)) for cell in row)} |" for row in lines)


def _inline(text: str) -> str:
    """A stranger's text escaped so that it stays in its cell and on its line."""
    flat = "".join(letter if letter.isprintable() else " " for letter in text)
    return flat.replace("|", "\\|").replace("<", "&lt;")
