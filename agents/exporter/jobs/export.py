"""The two jobs of an export: making a file, and proving in another process that it computes what was trained."""

import functools
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from agents.exporter.jobs import ProvenFile, Timing, parity
from agents.exporter.jobs.formats import Format, named, plain_of
from agents.exporter.jobs.trained import ExportModel, Unexportable, load, questions, some_rows
from bus.blobs import DirectoryBlobs, digest_of
from contracts.errors import InvalidInput
from contracts.request.training import FORMATS, QUANTIZATIONS
from runtime.engine.ragged import Ragged, apart, some
from runtime.model.trained import TARGET
from runtime.node.capabilities import ExportRefusal, ExportTask, MadeFile

R = TypeVar("R")
Rows = Mapping[str, np.ndarray | Ragged]

SECONDS = 900
"""A library that hangs on a model is ended by the system after this time: a death of the job like any other."""

RUNS = 200
_WARM = 10
_TIMED_SECONDS = 0.5
_TIMED_BATCHES = (1, 32)
_JUDGED_ROWS = 4096
_JUDGED_BATCH = 256


def refusing(main: Callable[[ExportTask], R]) -> Callable[[ExportTask], R | ExportRefusal]:
    """A job function whose refusals are answers, and whose time is limited when it has a process of its own."""

    @functools.wraps(main)
    def guarded(task: ExportTask) -> R | ExportRefusal:
        if threading.current_thread() is threading.main_thread():
            signal.alarm(SECONDS)
        try:
            return main(task)
        except Unexportable as error:
            return ExportRefusal(error.code, error.message, error.cure)
        except ModuleNotFoundError as error:
            message = f"there is no module {error.name!r}."
            return ExportRefusal("missing-module", message, f"pip install {error.name}")

    return guarded


@refusing
def make(task: ExportTask) -> MadeFile:
    """Makes one file in the session's scratch folder; proves nothing and publishes nothing.

    Companions are written beside it. It is written under the name that its order gives it, which some formats keep
    inside; a name from a log must be replaced by the caller's own before it comes here.
    """
    order, made = task.order, task.work / task.filename
    if order.format not in FORMATS:
        raise InvalidInput(f"{order.format!r} is no format.", cure=f"Known: {', '.join(FORMATS)}.")
    if order.quantize not in ("", *QUANTIZATIONS):
        raise InvalidInput(f"{order.quantize!r} is no quantisation.", cure=f"Known: {', '.join(QUANTIZATIONS)}.")
    format_ = named(order.format)
    path, trained = made.with_name(order.filename), load(task)
    written = format_.write(trained, order.quantize, path)
    path.replace(made)
    details = written.details | {"weights_digest": trained.checkpoint.weights_digest}
    for suffix, content in written.beside.items():
        made.with_name(f"{made.name}.{suffix}").write_bytes(content)
        details.setdefault("beside", {})[suffix] = digest_of(content)
    return MadeFile(written.opset, details)


@refusing
def verify(task: ExportTask) -> ProvenFile:
    """Asks a finished file and the engine's model the same questions, and publishes the file when the answers agree.

    Refused with its figures when it did not pass. It runs in a process of its own: a library that crashes on the file
    takes nothing else with it.
    """
    path, form, quantize = task.work / task.filename, task.order.format, task.order.quantize
    trained, format_ = load(task), named(form)
    answer = format_.opened(path, quantize)
    asked = questions(trained.dataset)
    rows = len(next(iter(asked.values())))
    comparison = parity.compare(trained.answers, answer, asked, rows, parity.BATCHES)
    figures, judged = _judged(trained, answer, comparison.figures())
    if against := parity.objection(form, quantize, figures, judged):
        told = ", ".join(f"{name} {value:.4g}" for name, value in figures.items())
        cure = "Export it without `quantize`." if quantize else "Export safetensors, and report this model's shape."
        raise Unexportable("parity", f"{against} (worst at {comparison.worst}; {told}).", cure)
    timings, advice = _timings(format_, answer, path, quantize, asked)
    notes = [note for note in (parity.warning(quantize, figures), advice) if note]
    details = {"batches": list(parity.BATCHES), "rows_judged": judged} | ({"notes": notes} if notes else {})
    blob = _publish(path, DirectoryBlobs(task.blobs), task.exports)
    size = (task.exports / path.name).stat().st_size
    return ProvenFile(blob, size, rows, figures, details, timings)


def _judged(trained: ExportModel, answer: parity.Ask, figures: dict[str, float]) -> tuple[dict[str, float], int]:
    """The figures of parity, with those of the task where there are classes, and their number of validation rows."""
    columns = some_rows(trained.dataset, "val", _JUDGED_ROWS)
    rows = len(next(iter(columns.values())))
    truth = columns.get(TARGET)
    if trained.task != "classification" or not isinstance(truth, np.ndarray):
        return figures, rows
    accuracies = {
        "reference_accuracy": parity.accuracy(_all_answers(trained.answers, columns, rows), truth),
        "accuracy": parity.accuracy(_all_answers(answer, columns, rows), truth),
    }
    return figures | accuracies, rows


def _all_answers(ask: parity.Ask, columns: Rows, rows: int) -> np.ndarray:
    firsts = range(0, rows, _JUDGED_BATCH)
    batches = (apart(some(columns, np.arange(f, min(f + _JUDGED_BATCH, rows)))) for f in firsts)
    return np.concatenate([ask(batch) for batch in batches])


def _timings(format_: Format, answer: parity.Ask, path: Path, quantize: str, asked: Rows) -> tuple[list[Timing], str]:
    """Latency of files that other software runs, and whether a quantised one is worth it on this machine."""
    if not format_.executable:
        return [], ""
    rows, rivals = len(next(iter(asked.values()))), [answer]
    if quantize and (plain := plain_of(path)).exists():
        rivals.append(format_.opened(plain, ""))
    timings, ratios = [], []
    for batch in _TIMED_BATCHES:
        took = timed(rivals, apart(some(asked, np.arange(min(batch, rows)))), batch)
        timings.append(took[0])
        ratios += [took[0].median_ms / rival.median_ms for rival in took[1:]]
    if not ratios or min(ratios) <= 1:
        return timings, ""
    return timings, f"{min(ratios):.1f} times slower than the plain file on this machine: not recommended"


def timed(asks: Sequence[parity.Ask], columns: parity.Columns, batch: int) -> list[Timing]:
    """Median and p95 in milliseconds of each; they take turns, so that a busy moment hits all of them.

    One caller asks after the other, in this process: figures of a machine, not of the model.
    """
    taken: list[list[float]] = [[] for _ in asks]
    for _ in range(_WARM):
        for ask in asks:
            ask(columns)
    end = time.perf_counter() + _TIMED_SECONDS
    while len(taken[0]) < RUNS and (time.perf_counter() < end or len(taken[0]) < _WARM):
        for ask, times in zip(asks, taken, strict=True):
            began = time.perf_counter()
            ask(columns)
            times.append((time.perf_counter() - began) * 1000)
    return [Timing(batch, float(np.median(times)), float(np.percentile(times, 95)), len(times)) for times in taken]


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
