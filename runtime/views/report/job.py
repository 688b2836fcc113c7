"""The job that writes a session's files from its log: request.yaml, metrics.json, report.md, plots. A niced child."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
import yaml

from contracts.session import SessionState
from runtime.home.home import Home
from runtime.jobs.job import Job
from runtime.log.archive import Archive
from runtime.log.session_log import SessionLog
from runtime.views import curves, view
from runtime.views.report import text

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
    _write(folder / "report.md", text.page(state, facts, ()).encode())
    drawn, problem = _draw(folder / "plots", state, table, seconds)
    _write(folder / "report.md", text.page(state, facts, drawn).encode())
    return {"path": str(folder / "report.md"), "plots": drawn, "problem": problem}


def _metrics(history: SessionLog, table: list[curves.Row], seconds: Mapping[str, float]) -> dict[str, Any]:
    seen = view.summary(history.state)
    kept = ("session", "name", "kind", "state", "step", "steps_total", "epoch", "weights_digest", "sealed", "wall_s")
    about = {name: seen[name] for name in kept} | {"metrics": seen["metrics"], "seconds": dict(seconds)}
    about |= {name: seen[name] for name in ("best_trial", "range_test") if seen[name] is not None}
    figures: dict[str, Any] = _plain(about | {"columns": curves.columns(table), "rows": table})
    return figures


def _draw(
    folder: Path, state: SessionState, table: list[curves.Row], seconds: Mapping[str, float]
) -> tuple[list[str], str]:
    """The plots that could be drawn, and why the others could not: words are worth having without pictures."""
    drawn: list[str] = []
    try:
        from runtime.views.report import plots

        begins, tried = [one.begins for one in state.segments[1:]], view.range_test(state)
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
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value
