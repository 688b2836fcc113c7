"""How long it takes to say which steps saw a row and which rows a step saw, in a session of a million steps.

row_ms            the steps of a row among a million rows: it comes once in an epoch, 64 times in all
row_often_ms      the steps of a row among 1437: it comes 44 thousand times
row_balanced_ms, row_grouped_ms, row_weighted_ms      the same under the other samplers
step_ms           the rows of the last step

The log is in memory already, as after reading it; the windows that are held against the answers are part of the time.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.report import options, report
from bus.blobs import DirectoryBlobs, digest_of
from contracts.data_manager import DatasetPrepared
from contracts.operator import RULES, SessionRequested
from contracts.request import read_request
from contracts.trainer import TrainingClaimed
from runtime.engine import dataset
from runtime.engine.facts import describe
from runtime.engine.sampling import Order
from runtime.log.session_log import SessionLog
from runtime.views.trace import Trace
from tests.agents.cases import tell
from tests.runtime.recorded_home import DIGEST, claimed, window

BATCH, WINDOW = 64, 50


def main() -> None:
    """Measure one after the other."""
    asked = options(__doc__ or "")
    steps = 100_000 if asked.quick else 1_000_000
    with tempfile.TemporaryDirectory(prefix="trace") as name:
        blobs = DirectoryBlobs(Path(name))
        many, few = traced(blobs, 1_000_000, steps), traced(blobs, 1437, steps)
        figures = {
            "row_ms": median_ms(lambda: many.row("train:77", 1000)),
            "row_often_ms": median_ms(lambda: few.row("train:77", 1000)),
            "step_ms": median_ms(lambda: few.step(steps)),
        }
        for kind in ("balanced", "grouped", "weighted"):
            one = traced(blobs, 1437, steps, type=kind)
            figures[f"row_{kind}_ms"] = median_ms(lambda one=one: one.row("train:77", 1000))
    report(asked, figures, {"steps": str(steps), "windows": str(steps // WINDOW)})


def traced(blobs: DirectoryBlobs, rows: int, steps: int, **sampler: Any) -> Trace:
    """A session of so many steps over so many rows, as its log has it."""
    request = {"data": {"source": "digits"}, "model": {"architecture": "mlp"}}
    resolved = read_request(request | ({"sampler": sampler} if sampler else {})).resolved()
    classes = (np.arange(rows) % 10).astype("<i8")
    root = prepared(blobs, {"train": {"y": classes}, "val": {"y": classes[:10]}}) if sampler else DIGEST
    history = SessionLog("00-aaaaaaaaaaaaaaaaaaaaaaaaaa")
    tell(
        history,
        "operator",
        SessionRequested(kind="training", request=resolved, keyring="", asked_by="test", rules=RULES),
    )
    about = {"splits": {"train": rows, "val": 10}, "source": "digits", "source_digest": DIGEST}
    ready = DatasetPrepared(root=root, rows=rows, bytes=0, facts={"task": "other"}, findings=[], **about)
    tell(history, "data_manager", ready)
    numbers = {"rows": rows, "batch": BATCH, "accumulate": 1, "steps_total": steps}
    claim: TrainingClaimed = claimed().model_copy(update={"resolved": numbers, "dataset": root})
    order = Order(42, rows)
    windows = [window(first, first + WINDOW) for first in range(0, steps, WINDOW)]
    digest = digest_of(order.take((steps - WINDOW) * BATCH, WINDOW * BATCH).astype("<i8").tobytes())
    windows[-1] = windows[-1].model_copy(update={"index_digest": digest})
    tell(history, "trainer", claim, *windows)
    return Trace(history, blobs)


def prepared(blobs: DirectoryBlobs, splits: dict[str, dict[str, np.ndarray]]) -> str:
    """A dataset of labels alone, under its root."""
    place = blobs.root / "datasets"
    made = dataset.write(place / "new", splits, describe(splits, "classification"))
    if not (place / made.root).exists():
        (place / "new").rename(place / made.root)
    return made.root


def median_ms(work: Callable[[], Any], times: int = 7) -> float:
    """The median of some runs, in milliseconds."""
    found = []
    for _ in range(times):
        begun = time.perf_counter()
        work()
        found.append((time.perf_counter() - begun) * 1000)
    return statistics.median(found)


if __name__ == "__main__":
    main()
