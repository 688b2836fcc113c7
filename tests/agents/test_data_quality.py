from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from blake3 import blake3

from agents.data_manager import quality
from agents.data_manager.quality import firsts, keys_of, twins
from agents.data_manager.scratch import portions
from agents.data_manager.sources.image_folder import ImageMeasures
from contracts.request.data import ImageQuality
from tests.agents.preparing import Bench, finding, table

HOUSE = Path(__file__).parents[2]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


# Rows that are set aside.


def test_every_row_that_was_set_aside_is_listed_beside_the_dataset_and_covered_by_its_root(bench: Bench) -> None:
    broken = {f"row{n}": f"x,{n},odd" for n in range(1, 31)}
    said = bench.prepared(bench.csv(table(rows=400, **broken)) | {"tolerance": 0.1})
    assert (finding(said, "corrupt").count, len(finding(said, "corrupt").where)) == (30, 10)
    listed = bench.beside(said, "set-aside.jsonl")
    assert [one["where"].partition(" (")[0] for one in listed] == [f"row {n}" for n in range(1, 31)]
    content = (bench.store / said.root / "set-aside.jsonl").read_bytes()
    assert said.facts.extra == {"lists": {"set-aside.jsonl": blake3(content).hexdigest()}}


def test_the_stated_tolerance_decides(bench: Bench) -> None:
    data = bench.csv(table(row3="x,1,odd"))
    assert bench.prepared(data).rows == 39
    (problem,) = bench.rejected(data | {"tolerance": 0.0})
    assert "1 of 40 rows (2.5%) are corrupt, more than `data.tolerance` (0%)" in problem["message"]
    assert "`data.tolerance: 0.03` sets these aside." in problem["cure"]
    assert bench.prepared(data | {"tolerance": 0.03}).rows == 39


def test_all_kinds_of_broken_rows_count_together_and_every_reason_is_in_one_answer(bench: Bench) -> None:
    (problem,) = bench.rejected(bench.csv(table(row3="x,1,odd", row5="1,,odd", row7="6.5,36,even")))
    said = "3 of 40 rows (7.5%) are corrupt, missing or duplicate, more than `data.tolerance` (5%): 1 corrupt (row 3"
    assert problem["message"].startswith(said)
    assert "; 1 missing (row 5" in problem["message"]
    assert "; 1 duplicate (row 7" in problem["message"]


def test_another_reason_does_not_hide_what_is_wrong_with_the_rows(bench: Bench) -> None:
    rows = {f"row{n}": "x,1,odd" for n in range(1, 6)}
    problems = bench.rejected(bench.csv(table(rows=12, **rows)))
    assert "5 of 12 rows (41.7%) are corrupt" in problems[0]["message"]
    assert "7 rows are too few" in problems[1]["message"]


# Rows that are equal.


def wide(rows: int, width: int) -> np.ndarray:
    found = np.random.default_rng(0).integers(0, 3, (rows, width), np.uint8)
    found[rows // 2 :] = found[: rows - rows // 2]
    return found


@pytest.mark.parametrize("width", [3, 400])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.int64])
def test_narrow_and_wide_rows_find_their_first(width: int, dtype: Any) -> None:
    x = wide(200, width).astype(dtype)
    wanted = [next(at for at, other in enumerate(x) if np.array_equal(other, row)) for row in x]
    assert firsts([x]).tolist() == wanted


def test_keys_do_not_depend_on_how_rows_are_portioned(monkeypatch: pytest.MonkeyPatch) -> None:
    x = wide(100, 5)
    whole = keys_of([x])
    monkeypatch.setattr(quality, "portions", lambda column: portions(column, 64))
    assert np.array_equal(keys_of([x]), whole)


def test_rows_with_one_key_that_differ_are_no_repeats() -> None:
    x = np.array([[1], [2], [1], [2]])
    keys = np.zeros(4, np.uint64)
    assert firsts([x], keys).tolist() == [0, 1, 0, 3]
    assert twins(x, keys, np.array([2, 3]), np.array([0, 1])).tolist() == [0, -1]


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_a_feature_that_gives_the_answer_away_is_named_and_one_that_helps_is_not(bench: Bench, task: str) -> None:
    rng = np.random.default_rng(1)
    y = rng.integers(0, 3, 200) if task == "classification" else rng.normal(size=200)
    noise = rng.normal(size=(3, 200))
    lines = ["helps,leaks,other,kind"]
    for n in range(200):
        answer = f"c{y[n]}" if task == "classification" else f"{y[n]:.6f}"
        lines.append(f"{y[n] + noise[0, n] / 4:.6f},{7 - 2 * y[n] + noise[1, n] / 100:.6f},{noise[2, n]:.6f},{answer}")
    said = bench.prepared(bench.csv("\n".join(lines)) | {"task": task})
    assert finding(said, "telling-feature").where == ["'leaks'"]


@pytest.mark.parametrize("curve", [np.exp, lambda y: np.sin(y / 3)])
def test_a_feature_from_which_a_number_follows_along_a_curve_gives_it_away(
    bench: Bench, curve: Callable[[np.ndarray], np.ndarray]
) -> None:
    rng = np.random.default_rng(1)
    y = rng.normal(size=300)
    told, binary = curve(y), rng.integers(0, 2, 300)
    helps = y + rng.normal(size=300) / 4
    rows = zip(helps.tolist(), told.tolist(), binary.tolist(), y.tolist(), strict=True)
    lines = ["helps,leaks,binary,amount", *(",".join(map(str, row)) for row in rows)]
    said = bench.prepared(bench.csv("\n".join(lines)) | {"task": "regression", "target": "amount"})
    assert finding(said, "telling-feature").where == ["'leaks'"]


def rows_that_answer(task: str, wrong: float, apart: float) -> tuple[np.ndarray, np.ndarray]:
    """Rows of three kinds, so far apart, of which so large a share has an answer of chance."""
    rng = np.random.default_rng(3)
    kind = np.arange(600) % 3
    x = apart * np.eye(3, 6)[kind] + rng.normal(size=(600, 6))
    if task == "regression":
        y = x @ [3.0, 2.0, 1.0, 0.0, 0.0, 0.0] + rng.normal(size=600)
        return x, np.where(rng.random(600) < wrong, y + 4 * y.std() * rng.normal(size=600), y)
    return x, np.where(rng.random(600) < wrong, rng.integers(0, 3, 600), kind)


@pytest.mark.parametrize(
    ("task", "wrong", "apart", "told"),
    [
        ("classification", 0.0, 4.0, False),
        ("classification", 0.4, 4.0, True),
        ("classification", 0.0, 2.0, False),  # Kinds overlap: neighbours differ where they meet.
        ("regression", 0.0, 2.0, False),
        ("regression", 0.3, 2.0, True),
    ],
)
def test_answers_that_differ_among_like_rows_everywhere_alike_are_doubtful(
    bench: Bench, task: str, wrong: float, apart: float, told: bool
) -> None:
    x, y = rows_that_answer(task, wrong, apart)
    lines = ["a,b,c,d,e,f,kind"]
    for features, answer in zip(x.tolist(), y.tolist(), strict=True):
        lines.append(
            ",".join([*(f"{one:.5f}" for one in features), f"c{answer}" if task != "regression" else f"{answer:.5f}"])
        )
    said = bench.prepared(bench.csv("\n".join(lines)) | {"task": task})
    assert ("doubtful-answers" in [one.kind for one in said.findings]) == told
    if told:
        assert 0.1 * len(y) < finding(said, "doubtful-answers").count < 0.5 * len(y)


def test_a_twin_is_found_only_among_the_others() -> None:
    x = np.array([[5], [6], [7], [6]])
    assert twins(x, keys_of([x]), np.array([0, 3]), np.array([1, 2])).tolist() == [-1, 1]
    assert twins(x, keys_of([x]), np.array([0]), np.array([], np.int64)).tolist() == [-1]


# Measures of images.


def test_a_sharp_image_is_sharper_than_its_blur() -> None:
    sharp = np.random.default_rng(0).integers(0, 256, (32, 32), np.uint8)
    blurred = (sharp[:-1] // 4 + sharp[1:] // 4 + np.roll(sharp, 1, axis=1)[:-1] // 2).astype(np.uint8)
    assert ImageMeasures.of(sharp).sharpness > 2 * ImageMeasures.of(blurred).sharpness


def test_the_measures_are_what_they_say() -> None:
    halves = np.zeros((4, 6), np.uint8)
    halves[:, 3:] = 100
    found = ImageMeasures.of(halves)
    assert (found.side, found.contrast, found.complexity) == (4, 50.0, 1.0)
    assert found.sharpness == np.var([[0, 100, -100, 0]] * 2)
    assert ImageMeasures.of(np.full((5, 5), 7, np.uint8)) == ImageMeasures(5, 0.0, 0.0, 0.0)


def test_what_falls_short_first_is_named_with_its_measure() -> None:
    lack = ImageMeasures(30, 12.5, 3.0, 1.0).lacks(ImageQuality(min_sharpness=20, min_contrast=50))
    assert lack == ("blurred", "the sharpness is 12.5, wanted 20")
    assert ImageMeasures(30, 12.5, 3.0, 1.0).lacks(ImageQuality()) is None


# Sources larger than memory.

LIMITED = """
import json, resource, sys
from pathlib import Path
from agents.data_manager.jobs.prepare import prepare
from runtime.node.capabilities import PreparationOrder
import numpy, torch, pyarrow.parquet

args, room = json.loads(sys.argv[1]), int(sys.argv[2])
lines = open("/proc/self/status").read().splitlines()
held = next(int(line.split()[1]) for line in lines if line.startswith("VmData")) << 10
resource.setrlimit(resource.RLIMIT_DATA, (held + room, held + room))
order = PreparationOrder(args["data"], Path(args["store"]), [Path(args["root"])], (), ())
print(json.dumps(prepare(order, lambda done, total: None).model_dump(mode="json")))
"""


def prepared_within(bench: Bench, data: dict[str, Any], megabytes: int) -> str:
    """What a process says that may hold only so much more than it needs to begin with."""
    import json

    args = {"data": data, "store": str(bench.store), "root": str(bench.root)}
    command = [sys.executable, "-c", LIMITED, json.dumps(args), str(megabytes << 20)]
    sealed = {"PYTHONPATH": str(HOUSE), "OMP_NUM_THREADS": "1", "ARROW_DEFAULT_MEMORY_POOL": "system"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **sealed})
    return done.stdout + done.stderr[-2000:]


needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="memory is limited and measured by Linux's means")


@pytest.mark.long
@needs_linux
def test_arrays_several_times_larger_than_memory_are_prepared(bench: Bench) -> None:
    rows = 20_000
    x = np.lib.format.open_memmap(bench.root / "x.npy", "w+", np.float32, (rows, 1000))
    x[:] = np.random.default_rng(0).random(1000, np.float32)
    x[:, 0] = np.arange(rows)
    with (bench.root / "r.bin").open("wb") as file:
        record = np.zeros(1000, [("x", "<f4", (1000,)), ("y", "u1")])
        for first in range(0, rows, 1000):
            record["x"], record["y"] = x[first : first + 1000], np.arange(1000) % 7
            file.write(record.tobytes())
    fields = [{"name": "x", "dtype": "f4", "shape": [1000]}, {"name": "y", "dtype": "u1"}]
    data = {"source": "raw", "path": str(bench.root / "r.bin"), "record": fields}
    assert (bench.root / "r.bin").stat().st_size > 4 * (16 << 20)
    assert '"rows": 20000' in prepared_within(bench, data, 16)


@pytest.mark.long
@needs_linux
@pytest.mark.parametrize("format", ["csv", "jsonl", "parquet"])
def test_tables_several_times_larger_than_memory_are_prepared(bench: Bench, format: str) -> None:
    rows, names = 1800, [f"c{n}" for n in range(1000)]
    path = bench.root / f"big.{format}"
    values = np.round(np.random.default_rng(0).random(1000), 15).tolist()
    cells = [repr(value) for value in values[1:]]
    match format:
        case "csv":
            with path.open("w") as file:
                file.write(",".join([*names, "kind"]) + "\n")
                file.writelines(",".join([str(n), *cells, str(n % 3)]) + "\n" for n in range(rows))
        case "jsonl":
            tail = ", ".join(f'"{name}": {cell}' for name, cell in zip(names[1:], cells, strict=True))
            with path.open("w") as file:
                file.writelines(f'{{"c0": {n}, {tail}, "kind": {n % 3}}}\n' for n in range(rows))
        case "parquet":
            pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
            rows, names = 40_000, names[:200]
            some = np.random.default_rng(0).random((20_000, 200))
            schema = pyarrow.schema([*((name, pyarrow.float64()) for name in names), ("kind", pyarrow.int64())])
            lean = {"use_dictionary": False, "compression": "none", "data_page_size": 1 << 15}
            with parquet.ParquetWriter(path, schema, **lean) as writer:
                for part in range(2):
                    columns = dict(zip(names, (some + part).T, strict=True)) | {"kind": np.arange(20_000) % 3}
                    writer.write_table(pyarrow.table(columns, schema=schema), row_group_size=20_000)
    data = {"source": format, "path": str(path), "target": "kind"}
    room = 14 if format != "parquet" else 28
    assert path.stat().st_size > 2 * (room << 20)
    assert f'"rows": {rows}' in prepared_within(bench, data, room)
