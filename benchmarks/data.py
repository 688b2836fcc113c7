"""How fast rows become a dataset, and how fast batches leave it.

csv_rows_per_s, jsonl_rows_per_s, parquet_rows_per_s   a table of 20 numbers and a class, from file to dataset
reuse_s                       the same table asked for again (every byte of it is checked)
feed_batches_per_s            batches of 64 rows of 64 numbers, drawn by the engine's order, from its feed (median)
loader_0_batches_per_s        the same rows from a torch DataLoader that shuffles, in this process (median)
loader_2_batches_per_s        with two workers; their start is not counted (median)
feed_over_loader_0            ours over theirs, and so on
workers_N_steps_per_s         steps of a small model on images that are shifted, jittered and made noisy, with N
                              threads that make batches ahead (`data.workers`), in turns (median)
workers_N_over_0              the same over none
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from agents.data_manager.jobs.prepare import prepare
from benchmarks.report import filesystem, options, report
from contracts.data_manager import DatasetPrepared
from contracts.request import read_request
from runtime.engine.batches import Feed
from runtime.engine.dataset import Dataset, write
from runtime.engine.facts import describe
from runtime.engine.loop import Run
from runtime.engine.plan import Plan
from runtime.engine.resolve import resolve
from runtime.engine.sampling import Order
from runtime.node.capabilities import PreparationOrder

FEATURES = 20
BATCH, WIDTH = 64, 64


def main() -> None:
    """Measure one after the other."""
    asked = options(__doc__ or "")
    torch.set_num_threads(1)
    rows, turns = (20_000, 3) if asked.quick else (200_000, 7)
    with tempfile.TemporaryDirectory(prefix="data") as name:
        folder = Path(name)
        figures = {**prepared(folder, rows), **fed(folder, rows, turns), **ahead(folder, asked.quick)}
        report(asked, figures, {"filesystem": filesystem(folder), "rows": str(rows), "turns": str(turns)})


def prepared(folder: Path, rows: int) -> dict[str, float]:
    """Rows per second of each format, and the seconds that a second session waits."""
    figures: dict[str, float] = {}
    chance = np.random.default_rng(0)
    numbers, classes = chance.random((rows, FEATURES)).round(6), chance.integers(0, 3, rows)
    for name, write_as in (("csv", as_csv), ("jsonl", as_jsonl), ("parquet", as_parquet)):
        path = folder / f"table.{name}"
        write_as(path, numbers, classes)
        data = {"source": name, "path": str(path), "target": "kind"}
        figures[f"{name}_rows_per_s"] = rows / seconds(lambda data=data, name=name: job(data, folder / name, folder))
    figures["reuse_s"] = seconds(lambda: job(data, folder / "parquet", folder))
    return figures


def fed(folder: Path, rows: int, turns: int) -> dict[str, float]:
    """Batches per second of the feed and of the loaders, turn by turn in one run."""
    data = {"source": "blobs", "rows": rows, "features": WIDTH, "split": {"train": 0.8, "val": 0.2, "test": 0}}
    dataset = Dataset.open(folder / "blobs" / job(data, folder / "blobs", folder).root)
    columns = {name: torch.from_numpy(np.array(one)) for name, one in dataset.columns("train").items()}
    pairs = torch.utils.data.TensorDataset(columns["x"], columns["y"])
    sources: dict[str, Callable[[], Iterator[Any]]] = {"feed": lambda: ours(dataset)}
    for workers in (0, 2):
        sources[f"loader_{workers}"] = lambda workers=workers: iter(
            torch.utils.data.DataLoader(pairs, BATCH, shuffle=True, drop_last=True, num_workers=workers)
        )
    found: dict[str, list[float]] = {name: [] for name in sources}
    for _ in range(turns):
        for name, source in sources.items():
            found[name].append(pace(source()))
    figures = {f"{name}_batches_per_s": statistics.median(values) for name, values in found.items()}
    for workers in (0, 2):
        ratios = [one / other for one, other in zip(found["feed"], found[f"loader_{workers}"], strict=True)]
        figures[f"feed_over_loader_{workers}"] = statistics.median(ratios)
    return figures


def ours(dataset: Dataset) -> Iterator[Any]:
    """One epoch of batches as training takes them: fifty at a time are drawn, each is gathered when it is wanted."""
    feed = Feed(dataset, "train", "cpu")
    order = Order(0, feed.rows)
    for window in range(feed.rows // BATCH // 50):
        rows = order.take(window * 50 * BATCH, 50 * BATCH)
        for part in feed.batches(rows, BATCH, window * 50 * BATCH):
            yield feed.batch(part)


def ahead(folder: Path, quick: bool) -> dict[str, float]:
    """Steps per second of whole trainings on changed images, by how many threads make their batches ahead."""
    chance = np.random.default_rng(0)
    splits = {
        name: {"x": chance.random((rows, 3, 32, 32), np.float32), "y": chance.integers(0, 4, rows)}
        for name, rows in (("train", 2048), ("val", 64), ("test", 64))
    }
    write(folder / "images", splits, describe(splits, "classification"))
    dataset = Dataset.open(folder / "images")
    found: dict[int, list[float]] = {0: [], 1: [], 2: []}
    for _ in range(2 if quick else 7):
        for workers, paces in found.items():
            request = read_request(
                {
                    "data": {"source": "csv", "path": "x.csv", "target": "y", "workers": workers},
                    "model": {"architecture": "mlp", "hidden": [128]},
                    "training": {"epochs": 3 if quick else 6, "batch_size": 64, "threads": 1},
                    "augment": [{"type": "shift", "pixels": 2}, {"type": "jitter"}, {"type": "noise", "scale": 0.1}],
                    "early_stopping": {"enabled": False},
                }
            )
            run = Run.start(Plan(request, resolve(request, dataset.facts, cores=2)), dataset)
            begun = time.perf_counter()
            while not run.finished:
                run.advance()
            paces.append(run.step / (time.perf_counter() - begun))
    figures = {f"workers_{workers}_steps_per_s": statistics.median(paces) for workers, paces in found.items()}
    ratios = {workers: [one / base for one, base in zip(found[workers], found[0], strict=True)] for workers in (1, 2)}
    return figures | {f"workers_{workers}_over_0": statistics.median(pairs) for workers, pairs in ratios.items()}


def pace(batches: Iterator[Any]) -> float:
    """Batches per second from the second on; what begins them is not counted."""
    next(batches)
    begin, count = time.perf_counter(), 0
    for _ in batches:
        count += 1
    return count / (time.perf_counter() - begin)


def job(data: dict[str, Any], store: Path, root: Path) -> DatasetPrepared:
    """The preparation as its child runs it."""
    said = prepare(PreparationOrder(data, store, [root], (), ()), lambda done, total: None)
    if not isinstance(said, DatasetPrepared):
        raise SystemExit(str(said))
    return said


def seconds(work: Callable[[], Any]) -> float:
    """How long something takes."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def as_csv(path: Path, numbers: np.ndarray, classes: np.ndarray) -> None:
    """The table as text."""
    with path.open("w") as file:
        file.write(",".join([*names(), "kind"]) + "\n")
        for row, kind in zip(numbers.tolist(), classes.tolist(), strict=True):
            file.write(",".join(map(repr, row)) + f",{kind}\n")


def as_jsonl(path: Path, numbers: np.ndarray, classes: np.ndarray) -> None:
    """The table as objects."""
    with path.open("w") as file:
        for row, kind in zip(numbers.tolist(), classes.tolist(), strict=True):
            file.write(json.dumps(dict(zip(names(), row, strict=True)) | {"kind": kind}) + "\n")


def as_parquet(path: Path, numbers: np.ndarray, classes: np.ndarray) -> None:
    """The table as columns."""
    import pyarrow as pa
    from pyarrow import parquet

    columns = dict(zip(names(), numbers.T, strict=True)) | {"kind": classes}
    parquet.write_table(pa.table(columns), path)


def names() -> list[str]:
    """What the features are called."""
    return [f"f{number}" for number in range(FEATURES)]


if __name__ == "__main__":
    main()
