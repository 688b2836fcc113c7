"""What rows will take is held against what is free before they are read, made or written, and told in figures."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from agents.data_manager import scratch
from agents.data_manager.scratch import Scratch
from agents.data_manager.source import DataTable
from agents.data_manager.sources.table_formats import ParquetFile
from agents.data_manager.writing import refuse_beyond_room
from contracts.errors import InvalidRequest
from contracts.request.data import Synthetic
from runtime.engine.ragged import Ragged
from runtime.jobs import resources
from tests.agents.preparing import Bench, table

h5py = pytest.importorskip("h5py")
parquet = pytest.importorskip("pyarrow.parquet")
pyarrow = pytest.importorskip("pyarrow")
Image = pytest.importorskip("PIL.Image")

Room = Callable[..., None]
ROWS, FEATURES = 40, 2
TABLE = ROWS * FEATURES * 8
"""What the features of `table()` take: as float32, once beside the dataset and once in it."""


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> Room:
    """Let so many bytes be free."""

    def has(*, disk: int = 1 << 50, held: int = 1 << 50) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=disk))
        monkeypatch.setattr(resources, "free_bytes", lambda: held)

    return has


def refused(bench: Bench, data: dict[str, Any], path: str, says: str) -> None:
    (problem,) = bench.rejected(data)
    assert problem["path"] == path
    assert says in problem["message"]
    assert "free" in problem["message"]
    assert "free some" in problem["cure"]


def test_a_table_that_will_not_fit_is_refused_once_its_rows_are_counted(bench: Bench, room: Room) -> None:
    data = bench.csv(table(ROWS))
    room(disk=TABLE - 1)
    refused(bench, data, "data.path", f"{ROWS} rows of {FEATURES} features would take")
    room(disk=TABLE)
    bench.prepared(data)


def test_a_table_that_declares_its_rows_is_refused_before_the_first(
    bench: Bench, room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    columns = {"a": np.zeros(10**6), "b": np.zeros(10**6), "kind": np.arange(10**6) % 2}
    parquet.write_table(pyarrow.table(columns), bench.root / "zeros.parquet", compression="zstd")
    assert (bench.root / "zeros.parquet").stat().st_size < 20_000
    monkeypatch.setattr(ParquetFile, "blocks", lambda *_: pytest.fail("a row was read"))
    room(disk=10**6 * FEATURES * 8 - 1)
    data = {"source": "parquet", "path": str(bench.root / "zeros.parquet"), "target": "kind"}
    refused(bench, data, "data.path", "1000000 rows of 2 features would take")


def test_words_that_become_a_feature_each_are_counted_before_they_do(bench: Bench, room: Room) -> None:
    lines = [f"{n}.5,w{n % 20},{'even' if n % 2 == 0 else 'odd'}" for n in range(ROWS)]
    data = bench.csv("\n".join(["a,word,kind", *lines]))
    room(disk=21 * ROWS * 8 - 1)
    refused(bench, data, "data.path", "40 rows with 21 features, words as one each, would take")


def test_images_are_counted_before_the_first_is_opened_and_each_before_it_is_unpacked(bench: Bench, room: Room) -> None:
    for category in ("cat", "dog"):
        (bench.root / "pictures" / category).mkdir(parents=True)
        for n in range(20):
            pixels = np.random.default_rng([n, ord(category[0])]).integers(0, 256, (50, 40, 3), np.uint8)
            Image.fromarray(pixels).save(bench.root / "pictures" / category / f"{n}.png")
    data = {"source": "image_folder", "path": str(bench.root / "pictures"), "height": 8, "width": 6}
    room(disk=2 * 40 * 8 * 6 * 3 - 1)
    refused(bench, data, "data.path", "40 images of the shape (3, 8, 6) would take")
    room(held=50 * 40 * 13 - 1)
    refused(bench, data, "data.path", "the image 'cat/0.png' would take")


def test_a_chunk_that_unpacks_to_more_than_memory_is_refused_unread(bench: Bench, room: Room) -> None:
    with h5py.File(bench.root / "a.h5", "w") as file:
        file.create_dataset("x", (16, 4), "<f4", chunks=(1 << 18, 4), maxshape=(None, 4), compression="gzip")
        file.create_dataset("y", (16,), "<f4")
    assert (bench.root / "a.h5").stat().st_size < 20_000
    room(held=(1 << 22) - 1)
    refused(bench, {"source": "hdf5", "path": str(bench.root / "a.h5")}, "data.x", "a chunk of 'x' would take")


def test_rows_that_a_workload_made_are_counted_before_they_are_written(tmp_path: Path, room: Room) -> None:
    columns = {"x": np.zeros((10, 3), np.float32), "y": np.zeros(10, np.int64)}
    made = DataTable("classification", columns, ("a",), ragged={"text": Ragged.of([b"four"] * 10)})
    places = {"train": np.arange(8), "val": np.array([8, 9])}
    with ExitStack() as files:
        kept = Scratch(tmp_path, files)
        room(disk=10 * (12 + 8 + 4))
        refuse_beyond_room(kept, made, places, Synthetic(), "data.workload")
        room(disk=10 * (12 + 8 + 4) - 1)
        with pytest.raises(InvalidRequest, match="a dataset of 10 rows would take") as caught:
            refuse_beyond_room(kept, made, places, Synthetic(), "data.workload")
    assert caught.value.problems[0].path == "data.workload"


def test_synthetic_rows_are_counted_before_the_dataset_is_written(bench: Bench, room: Room) -> None:
    lines = [f"{n * 37 % 101 / 7:.6f},{n * n % 89},{'rare' if n % 10 == 0 else 'common'}" for n in range(400)]
    data = bench.csv("a,b,kind\n" + "\n".join(lines)) | {"tolerance": 0.3}
    room(disk=12_000)
    bench.prepared(data)
    refused(bench, data | {"synthetic": {"share": 1}}, "data.synthetic", "synthetic ones would take")
    room(held=1000)
    refused(bench, data | {"synthetic": {"share": 1}}, "data.synthetic", "of memory")
    assert not list(bench.store.rglob("synthetic.jsonl"))


def test_a_reading_of_unknown_length_leaves_others_room_on_the_disk(
    tmp_path: Path, room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scratch, "LEFT", 1 << 10)
    with ExitStack() as files:
        kept = Scratch(tmp_path, files)
        (tmp_path / "rows").write_bytes(bytes(1 << 10))
        room(disk=(1 << 10) - 1)
        kept.leave_room(1, 2)
        (tmp_path / "rows").write_bytes(bytes(1 << 11))
        with pytest.raises(InvalidRequest, match=r"1 of 2 are read and take .* of disk, and .* are left"):
            kept.leave_room(1, 2)
        room(disk=1 << 10)
        kept.leave_room(2, 2)


@pytest.mark.parametrize("lengths", [[(1 << 24,) * 8], [(1 << 24, 1 << 4)] * 16 + [()]])
def test_a_record_that_no_file_could_hold_is_refused(bench: Bench, lengths: list[tuple[int, ...]]) -> None:
    """A library that counts in 32 bits would take the second for one of four bytes."""
    place = bench.root / "records.bin"
    with place.open("wb") as file:
        file.truncate(1 << 20)
    record = [{"name": f"f{n}", "dtype": "f4", "shape": shape} for n, shape in enumerate(lengths)]
    record.append({"name": "y", "dtype": "u1"})
    data = {"source": "raw", "path": str(place), "record": record, "x": "f0"}
    (problem,) = bench.rejected(data)
    assert problem["path"] == "data.record"
    assert "1048576 bytes hold no record of" in problem["message"]
