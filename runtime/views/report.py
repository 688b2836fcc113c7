"""What a session leaves for people to read: derived from its log, written beside it, made again whenever it is lost.

The page is a pure function of the session's facts (`session_page`); `write_files` writes it as Markdown and as HTML,
with the figures and pictures that belong to it, in a niced child.
"""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import yaml

from bus.disk import fresh_name
from contracts.session import SessionState
from runtime.home.home import Home
from runtime.jobs.job import job
from runtime.log.archive import Archive
from runtime.views import curves, html, markdown, svg, view
from runtime.views.blocks import Curves, Page, walk
from runtime.views.session_page import report_page
from runtime.views.session_record import SessionRecord

NICE = 15


@dataclass(frozen=True)
class ReportOrder:
    """The session whose files are to be written, its home, and the root key that its log is read with."""

    session: str
    home: Path
    root: str = ""


@dataclass(frozen=True)
class WrittenReport:
    """Where the report is, as Markdown and as HTML, and its curves as pictures."""

    path: str
    html: str
    plots: Sequence[str]


@job(purpose="report")
def write_files(order: ReportOrder) -> WrittenReport:
    """The paths of what was written. The same log gives the same bytes."""
    os.nice(NICE)
    home = Home(order.home)
    archive = Archive(home, order.root)
    history = archive.read(order.session).history
    folder, state = home.session(history.id), history.state
    record = SessionRecord.of(state, history.facts)
    page = report_page(state, record, archive.root)
    _write(folder / "request.yaml", yaml.safe_dump(state.request, sort_keys=False, allow_unicode=True).encode())
    _write(folder / "metrics.json", orjson.dumps(_metrics(state, record), option=orjson.OPT_INDENT_2))
    pictures = _draw(folder / "plots", page)
    links = {name: f"plots/{name}.svg" for name in pictures}
    _write(folder / "report.html", html.render(page).encode())
    # Last, because its presence says that the report was written.
    _write(folder / "report.md", markdown.render(page, links).encode())
    return WrittenReport(
        path=str(folder / "report.md"),
        html=str(folder / "report.html"),
        plots=[str(folder / link) for link in links.values()],
    )


def _draw(folder: Path, page: Page) -> list[str]:
    """Write the curves of a page that have a file's name, each as a picture."""
    drawn = [block for block in walk(page.blocks) if isinstance(block, Curves) and block.file]
    if drawn:
        folder.mkdir(exist_ok=True)
    for block in drawn:
        _write(folder / f"{block.file}.svg", svg.picture_of(block))
    return [block.file for block in drawn]


def _metrics(state: SessionState, record: SessionRecord) -> dict[str, Any]:
    summary: Mapping[str, object] = view.summary(state)
    kept = ("session", "name", "kind", "state", "step", "steps_total", "epoch", "weights_digest", "sealed", "wall_s")
    about = {name: summary[name] for name in kept} | {"metrics": summary["metrics"], "seconds": dict(record.seconds)}
    about |= {name: summary[name] for name in ("best_trial", "front", "lineage", "range_test") if summary[name]}
    figures: dict[str, Any] = _plain(about | {"columns": curves.columns(record.rows), "rows": record.rows})
    return figures


def _write(path: Path, content: bytes) -> None:
    with fresh_name(path) as fresh:
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
