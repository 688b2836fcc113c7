"""Asks a finished file and the engine's model the same questions, and publishes the file when the answers agree.

It runs in a process of its own: a library that crashes on the file takes nothing else with it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from agents.exporter import gates
from agents.exporter.jobs import parity, timing
from agents.exporter.jobs.formats import Answer, Format, named, plain_of
from agents.exporter.jobs.refusal import Unexportable, refusing
from agents.exporter.jobs.trained import TARGET, ExportModel, load, questions, some_rows
from bus.blobs import DirectoryBlobs
from runtime.engine.ragged import Ragged, apart, some
from runtime.jobs.job import Job

Rows = Mapping[str, np.ndarray | Ragged]

_TIMED_BATCHES = (1, 32)
_JUDGED_ROWS = 4096
_JUDGED_BATCH = 256


@refusing
def main(job: Job) -> dict[str, Any]:
    """Blob, size, figures and timings of a file that passed; refused with its figures when it did not."""
    order, path = job.args["order"], Path(job.args["work"]) / job.args["filename"]
    form, quantize = order["format"], order["quantize"]
    trained, format_ = load(job.args), named(form)
    answer = format_.opened(path, quantize)
    asked = questions(trained.dataset)
    rows = len(next(iter(asked.values())))
    comparison = parity.compare(trained.answers, answer, asked, rows, gates.BATCHES)
    figures, judged = _judged(trained, answer, comparison.figures())
    if against := gates.objection(form, quantize, figures, judged):
        told = ", ".join(f"{name} {value:.4g}" for name, value in figures.items())
        cure = "Export it without `quantize`." if quantize else "Export safetensors, and report this model's shape."
        raise Unexportable("parity", f"{against} (worst at {comparison.worst}; {told}).", cure)
    timings, advice = _timings(format_, answer, path, quantize, asked)
    notes = [note for note in (gates.warning(quantize, figures), advice) if note]
    details = {"batches": list(gates.BATCHES), "rows_judged": judged} | ({"notes": notes} if notes else {})
    blob = _publish(path, DirectoryBlobs(Path(job.args["blobs"])), Path(job.args["exports"]))
    return {
        "blob": blob,
        "bytes": (Path(job.args["exports"]) / path.name).stat().st_size,
        "rows": rows,
        "parity": parity.exact(figures),
        "details": details,
        "timings": timings,
    }


def _judged(trained: ExportModel, answer: Answer, figures: dict[str, float]) -> tuple[dict[str, float], int]:
    """The figures of parity, with those of the task where there are classes, and their number of validation rows."""
    columns = some_rows(trained.dataset, "val", _JUDGED_ROWS)
    rows = len(next(iter(columns.values())))
    truth = columns.get(TARGET)
    if trained.task != "classification" or not isinstance(truth, np.ndarray):
        return figures, rows
    found = {
        "reference_accuracy": parity.accuracy(_all_answers(trained.answers, columns, rows), truth),
        "accuracy": parity.accuracy(_all_answers(answer, columns, rows), truth),
    }
    return figures | found, rows


def _all_answers(ask: Answer, columns: Rows, rows: int) -> np.ndarray:
    firsts = range(0, rows, _JUDGED_BATCH)
    batches = (apart(some(columns, np.arange(f, min(f + _JUDGED_BATCH, rows)))) for f in firsts)
    return np.concatenate([ask(batch) for batch in batches])


def _timings(
    format_: Format, answer: Answer, path: Path, quantize: str, asked: Rows
) -> tuple[list[dict[str, Any]], str]:
    """Latency of files that other software runs, and whether a quantised one is worth it on this machine."""
    if not format_.executable:
        return [], ""
    rows, rivals = len(next(iter(asked.values()))), [answer]
    if quantize and (plain := plain_of(path)).exists():
        rivals.append(format_.opened(plain, ""))
    timings, ratios = [], []
    for batch in _TIMED_BATCHES:
        took = timing.timed(rivals, apart(some(asked, np.arange(min(batch, rows)))))
        timings.append({"batch": batch, **took[0]})
        ratios += [took[0]["median_ms"] / one["median_ms"] for one in took[1:]]
    if not ratios or min(ratios) <= 1:
        return timings, ""
    return timings, f"{min(ratios):.1f} times slower than the plain file on this machine: not recommended"


def _publish(path: Path, blobs: DirectoryBlobs, exports: Path) -> str:
    """Keep the file by its content, show it and its companions where people look, and leave no scratch behind."""
    exports.mkdir(parents=True, exist_ok=True)
    plain_of(path).unlink(missing_ok=True)
    for companion in path.parent.glob(f"{path.name}.*"):
        _show(blobs, blobs.put(companion, move=True), exports / companion.name)
    blob = blobs.put(path, move=True)
    _show(blobs, blob, exports / path.name)
    return blob


def _show(blobs: DirectoryBlobs, blob: str, shown: Path) -> None:
    """A second name for the blob's bytes, which are read-only; a copy where the file system has no second names."""
    fresh = shown.with_name(f".{shown.name}.{os.getpid()}")
    try:
        os.link(blobs.path(blob), fresh)
    except OSError:
        shutil.copyfile(blobs.path(blob), fresh)
    fresh.replace(shown)
    fresh.unlink(missing_ok=True)  # renaming one name of a file onto another of its names leaves both
