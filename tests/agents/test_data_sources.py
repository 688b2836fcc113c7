from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from agents.data_manager.sources.opening import source_of
from contracts.data_manager import ColumnFacts
from contracts.errors import InvalidInput
from contracts.request import read_request
from contracts.request.data import Data
from runtime.model.images import is_image, row_of
from tests.agents.preparing import Bench, finding

h5py = pytest.importorskip("h5py")
pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")
Image = pytest.importorskip("PIL.Image")

ROOT_OF_ROWS = "462e51e9"
"""Where the dataset's root begins that ROWS have in every format."""

ROWS = [{"a": n + 0.5, "b": ("u", "v", "w")[n % 3], "kind": ("x", "y")[n % 2]} for n in range(100)]


def test_every_section_of_data_has_a_source_that_opens_it() -> None:
    sections, _ = get_args(Data)
    assert len(get_args(sections)) > 10
    assert [each for each in get_args(sections) if source_of.dispatch(each) is source_of.dispatch(object)] == []


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def saved(bench: Bench, format: str, rows: Any = ROWS) -> dict[str, Any]:
    path = bench.root / f"rows.{format}"
    match format:
        case "csv":
            lines = [",".join(map(str, row.values())) for row in rows]
            path.write_text("\n".join([",".join(rows[0]), *lines]))
        case "json":
            path.write_text(json.dumps(rows, indent=1))
        case "jsonl":
            path.write_text("\n".join(map(json.dumps, rows)))
        case "parquet":
            parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=30)
    return {"source": format, "path": str(path), "target": "kind"}


def pixels(rows: int, *shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (rows, *shape), np.uint8)


# Tables.


@pytest.mark.parametrize("format", ["csv", "json", "jsonl", "parquet"])
def test_the_same_table_is_the_same_dataset_in_every_format(bench: Bench, format: str) -> None:
    said = bench.prepared(saved(bench, format))
    assert said.facts.features == ["a", "b=u", "b=v", "b=w"]
    assert said.root.startswith(ROOT_OF_ROWS)


@pytest.mark.parametrize("format", ["json", "jsonl", "parquet"])
def test_what_is_missing_in_a_row_is_named_in_every_format(bench: Bench, format: str) -> None:
    rows = [*ROWS[:40], {"a": None, "b": "u", "kind": "x"}, {"a": 1.25, "b": "u", "kind": None}, *ROWS[40:]]
    said = bench.prepared(saved(bench, format, rows))
    (missing,), (unlabelled,) = finding(said, "missing").where, finding(said, "unlabelled").where
    assert missing.startswith("row 41")
    assert missing.endswith("no value in 'a'")
    assert unlabelled.startswith("row 42")


def test_a_line_that_is_no_object_is_set_aside_and_the_next_one_is_read(bench: Bench) -> None:
    data = saved(bench, "jsonl")
    lines = Path(data["path"]).read_text().splitlines()
    lines[10:10] = [
        "{broken",
        "[1, 2]",
        '{"a": 1, "b": "u", "kind": "x", "other": 1}',
        '{"a": NaN, "b": "u", "kind": "x"}',
    ]
    lines[20:20] = ['{"a": [1, 2], "b": "u", "kind": "x"}']
    Path(data["path"]).write_text("\n".join(lines))
    said = bench.prepared(data)
    assert said.rows == 100
    listed = bench.beside(said, "set-aside.jsonl")
    assert [one["where"].partition(":")[0] for one in listed] == [
        *(f"row {n} (line {n})" for n in (11, 12, 13, 14, 21)),
    ]
    assert "list is not an object" in listed[1]["where"]
    assert "the key 'other' is not a column" in listed[2]["where"]
    assert listed[3]["kind"] in ("non-finite", "missing")
    assert "a list in 'a' is not a number" in listed[4]["where"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"a": 1}', "not a JSON list"),
        ('[{"a": 1, "kind": "x"}, {"a" 2}]', "not JSON near sign"),
        ('[{"a": 1, "kind": "x"} {"a": 2}]', "a comma or the end of the list"),
        ('[{"a": 1, "kind": "x"}', "a comma or the end of the list"),
        ('[{"a": 1, "kind": "x"}] more', "something follows the list"),
        ("[]", "0 columns"),
        ("", "not a JSON list"),
    ],
)
def test_a_file_that_is_no_json_list_is_refused(bench: Bench, text: str, says: str) -> None:
    path = bench.root / "rows.json"
    path.write_text(text)
    (problem,) = bench.rejected({"source": "json", "path": str(path), "target": "kind"})
    assert says in problem["message"]
    assert problem["cure"]


def test_a_json_list_of_many_pieces_is_read_whole(bench: Bench) -> None:
    rows = [{"a": n, "b": "é" * 300, "kind": ("x", "y")[n % 2]} for n in range(5000)]
    data = saved(bench, "json", rows)
    Path(data["path"]).write_text(json.dumps(rows, ensure_ascii=False))
    assert bench.prepared(data).rows == 5000


def test_a_damaged_parquet_file_is_refused(bench: Bench) -> None:
    data = saved(bench, "parquet")
    whole = Path(data["path"]).read_bytes()
    Path(data["path"]).write_bytes(whole[:-20])
    (problem,) = bench.rejected(data)
    assert "cannot be read" in problem["message"]


def test_ignored_columns_are_no_features(bench: Bench) -> None:
    said = bench.prepared(saved(bench, "csv") | {"ignore": ["b"]})
    assert said.facts.features == ["a"]
    (problem,) = bench.rejected(saved(bench, "csv") | {"ignore": ["bb"]})
    assert (problem["path"], problem["message"]) == ("data.ignore.0", "there is no column 'bb'")
    (problem,) = bench.rejected(saved(bench, "csv") | {"ignore": ["a", "b"]})
    assert problem["path"] == "data.ignore"


@pytest.mark.parametrize(
    ("source", "more", "module"),
    [("parquet", {"target": "kind"}, "pyarrow"), ("hdf5", {}, "h5py"), ("image_folder", {}, "PIL")],
)
def test_without_the_extra_the_cure_is_the_command_that_installs_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, source: str, more: dict[str, Any], module: str
) -> None:
    (bench.root / "a").mkdir()
    (bench.root / "rows").write_bytes(b"")
    for name in [module, *(one for one in sys.modules if one.startswith(f"{module}."))]:
        monkeypatch.setitem(sys.modules, name, None)
    path = bench.root if source == "image_folder" else bench.root / "rows"
    (problem,) = bench.rejected({"source": source, "path": str(path), **more})
    assert problem["path"] == "data.source"
    assert problem["cure"] == "Install it: pip install 'stigmergy-swarm[data]'"


# Arrays.


def test_arrays_of_an_archive_become_images(bench: Bench) -> None:
    x, y = pixels(60, 4, 5, 3), np.arange(60) % 3
    np.savez_compressed(bench.root / "a.npz", x=x, y=y)
    data = {"source": "npz", "path": str(bench.root / "a.npz")}
    assert bench.prepared(data | {"pixels": "hwc"}).facts.columns["x"] == ColumnFacts(dtype="|u1", shape=[3, 4, 5])
    train = bench.dataset(bench.prepared(data)).columns("train")
    assert train["x"].shape == (48, 4, 5, 3)
    wanted = {row.tobytes(): label for row, label in zip(x, y, strict=True)}
    assert all(wanted[row.tobytes()] == label for row, label in zip(train["x"], train["y"], strict=True))


def test_an_array_that_lies_column_by_column_is_the_same_dataset(bench: Bench) -> None:
    x, y = np.random.default_rng(0).random((50, 7)), np.array(["a", "b"])[np.arange(50) % 2]
    np.savez(bench.root / "c.npz", x=x, y=y)
    np.savez(bench.root / "f.npz", x=np.asfortranarray(x), y=y[:, None])
    roots = {bench.prepared({"source": "npz", "path": str(bench.root / f"{n}.npz")}).root for n in "cf"}
    assert len(roots) == 1


def test_rows_of_arrays_that_are_not_finite_or_not_labelled_are_named(bench: Bench) -> None:
    x, y = np.random.default_rng(0).random((100, 3)), np.linspace(0, 1, 100)
    x[4, 1], y[9] = np.inf, np.nan
    x[6, 0] = 1e300
    np.savez(bench.root / "a.npz", x=x, y=y)
    said = bench.prepared({"source": "npz", "path": str(bench.root / "a.npz")})
    assert (said.rows, said.facts.task) == (97, "regression")
    assert [where.partition(":")[0] for where in finding(said, "non-finite").where] == ["row 5", "row 7"]
    assert finding(said, "unlabelled").where == ["row 10: no value in 'y'"]


def test_arrays_of_objects_are_read_only_where_the_operator_trusts_the_folder(bench: Bench) -> None:
    y = np.array(["a", "b"] * 20, dtype=object)
    np.savez(bench.root / "a.npz", x=np.random.default_rng(0).random((40, 2)), y=y)
    data = {"source": "npz", "path": str(bench.root / "a.npz")}
    (problem,) = bench.rejected(data)
    assert "pickle" in problem["message"]
    assert "trusted_data" in problem["cure"]
    bench.trusted = [str(bench.root)]
    assert bench.prepared(data).facts.labels == ["a", "b"]


@pytest.mark.parametrize(
    ("more", "path", "says"),
    [
        ({"x": "z"}, "data.x", "there is no array 'z'"),
        ({"y": "short"}, "data.path", "the arrays differ in length"),
        ({"y": "x"}, "data.y", "'x' has the shape (40, 2)"),
        ({"x": "words"}, "data.x", "the dtype '<U1'"),
        ({"pixels": "hwc"}, "data.x", "'x' has the shape (40, 2)"),
    ],
)
def test_arrays_that_cannot_be_meant_are_refused(bench: Bench, more: dict[str, str], path: str, says: str) -> None:
    x = np.random.default_rng(0).random((40, 2))
    words = np.array([["a", "b"]] * 40)
    np.savez(bench.root / "a.npz", x=x, y=np.arange(40) % 2, short=np.arange(9), words=words)
    (problem,) = bench.rejected({"source": "npz", "path": str(bench.root / "a.npz"), **more})
    assert problem["path"] == path
    assert says in problem["message"]


def test_a_damaged_archive_is_refused(bench: Bench) -> None:
    np.savez_compressed(bench.root / "a.npz", x=pixels(40, 9), y=np.arange(40) % 2)
    content = bytearray((bench.root / "a.npz").read_bytes())
    content[200] ^= 255
    (bench.root / "a.npz").write_bytes(content)
    (bench.root / "b.npz").write_bytes(b"PK nothing")
    for name in ("a", "b"):
        (problem,) = bench.rejected({"source": "npz", "path": str(bench.root / f"{name}.npz")})
        assert "Write" in problem["cure"]


def test_data_sets_of_a_file_are_found_by_their_path_and_nothing_in_other_files_is_read(bench: Bench) -> None:
    path, x = bench.root / "a.h5", np.random.default_rng(0).random((40, 3))
    with h5py.File(bench.root / "other.h5", "w") as other:
        other["x"] = x
    layout = h5py.VirtualLayout((40, 3), x.dtype)
    layout[:] = h5py.VirtualSource(str(bench.root / "other.h5"), "x", (40, 3))
    with h5py.File(path, "w") as file:
        file["g/x"], file["g/y"] = x, np.array([b"u", b"v"] * 20)
        file["outside"] = h5py.ExternalLink("other.h5", "x")
        file["soft"] = h5py.SoftLink("/g/x")
        file.create_virtual_dataset("virtual", layout)
    data = {"source": "hdf5", "path": str(path), "y": "g/y"}
    assert bench.prepared(data | {"x": "g/x"}).facts.labels == ["u", "v"]
    for name, says in (
        ("outside", "a link to another file"),
        ("soft", "Name '/g/x' itself"),
        ("virtual", "lie in other files"),
        ("g", "is a group"),
        ("g/z", "no data set"),
    ):
        (problem,) = bench.rejected(data | {"x": name})
        assert says in problem["message"] + problem["cure"]


def test_raw_records_are_read_as_the_request_lays_them_out(bench: Bench) -> None:
    records = np.zeros(80, [("label", "u1"), ("pixels", ">u2", (1, 3, 3)), ("site", ">i4")])
    records["label"], records["pixels"] = np.arange(80) % 4, pixels(80, 1, 3, 3)
    records["site"] = np.arange(80) // 8
    (bench.root / "r.bin").write_bytes(b"HEADER" + records.tobytes() + b"cut")
    fields = [
        {"name": "label", "dtype": "u1"},
        {"name": "pixels", "dtype": "u2", "shape": [1, 3, 3]},
        {"name": "site", "dtype": "i4"},
    ]
    data = {"source": "raw", "path": str(bench.root / "r.bin"), "record": fields, "endian": "big", "header_bytes": 6}
    data |= {"x": "pixels", "y": "label", "split": {"group": "site"}}
    said = bench.prepared(data)
    assert said.rows == 80
    assert finding(said, "corrupt").where == ["row 81: the last 3 bytes are less than a record of 23"]
    train = bench.dataset(said).columns("train")
    assert train["x"].shape[1:] == (1, 3, 3)
    wanted = {row.astype("<u2").tobytes() for row in records["pixels"]}
    assert all(row.tobytes() in wanted for row in train["x"])


# Images.


def pictures(bench: Bench, count: int = 20) -> Path:
    for category in ("cat", "dog"):
        (bench.root / "pictures" / category).mkdir(parents=True)
        for n in range(count):
            image = Image.fromarray(pixels(1, 20 + n, 24, 3, seed=n + ord(category[0]))[0])
            image.save(bench.root / "pictures" / category / f"{n:02}.png")
    return bench.root / "pictures"


def test_folders_of_images_are_classes_of_pixels(bench: Bench) -> None:
    data = {"source": "image_folder", "path": str(pictures(bench)), "height": 8, "width": 6}
    said = bench.prepared(data)
    assert (said.rows, said.facts.labels) == (40, ["cat", "dog"])
    assert said.facts.columns["x"] == ColumnFacts(dtype="|u1", shape=[3, 8, 6])
    assert bench.prepared(data | {"colours": "grey"}).facts.columns["x"].shape == [1, 8, 6]
    assert bench.prepared(data).reused
    (bench.root / "pictures" / "cat" / "00.png").unlink()
    assert not bench.prepared(data).reused


def test_an_image_is_asked_about_as_the_row_that_it_is_trained_as(bench: Bench) -> None:
    data = {"source": "image_folder", "path": str(pictures(bench)), "height": 8, "width": 6, "colours": "grey"}
    said = bench.prepared(data)
    trained = {row.tobytes() for name in said.splits for row in bench.dataset(said).columns(name)["x"]}
    request = read_request({"data": data, "model": {"architecture": "cnn"}}).resolved()
    files = sorted((bench.root / "pictures").rglob("*.png"))
    asked = [row for file in files for row in row_of(file.read_bytes(), file.name, request)]
    assert {row.shape for row in asked} == {(1, 8, 6)}
    assert {row.tobytes() for row in asked} == trained
    with pytest.raises(InvalidInput, match=r"cat\.png cannot be read as an image: it is none of PNG"):
        row_of(b"no image", "cat.png", request)
    of_digits = read_request({**request, "data": {"source": "digits"}}).resolved()
    with pytest.raises(InvalidInput, match=r"cat\.png is an image, and this session was trained with rows of 'digits'"):
        row_of(files[0].read_bytes(), "cat.png", of_digits)


@pytest.mark.parametrize(
    ("name", "content", "image"),
    [
        ("cat.PNG", b"", True),
        ("stdin", b"\x89PNG\r\n", True),
        ("stdin", b"\xff\xd8\xff\xe0", True),
        ("rows.csv", b"a,b\n", False),
        ("stdin", b"[[1]]", False),
    ],
)
def test_an_image_is_known_by_its_name_or_its_beginning(name: str, content: bytes, image: bool) -> None:
    assert is_image(name, content) == image


def test_images_that_fall_short_are_set_aside_and_named(bench: Bench) -> None:
    folder = pictures(bench)
    shades = np.tile(np.arange(30, dtype=np.uint8) * 4, (30, 1))
    checks = np.kron(np.indices((15, 15)).sum(axis=0) % 2, np.ones((2, 2))).astype(np.uint8) * 255
    for name, array in (("smooth", shades), ("flat", np.full((30, 30), 9, np.uint8)), ("plain", checks)):
        Image.fromarray(array).save(folder / "cat" / f"{name}.png")
    Image.fromarray(pixels(1, 9, 30)[0]).save(folder / "dog" / "small.png")
    (folder / "dog" / "cut.png").write_bytes((folder / "dog" / "01.png").read_bytes()[:300])
    (folder / "dog" / "text.png").write_text("no image")
    (folder / "dog" / "link.png").symlink_to(folder / "dog" / "01.png")
    Image.fromarray(pixels(1, 30, 30)[0]).save(folder / "loose.png")
    quality = {"min_side": 10, "min_sharpness": 100, "min_contrast": 20, "min_complexity": 2}
    said = bench.prepared(
        {"source": "image_folder", "path": str(folder), "quality": quality, "tolerance": 0.2, "colours": "grey"}
    )
    assert said.rows == 40
    listed = {one["where"].partition(":")[0]: one["kind"] for one in bench.beside(said, "set-aside.jsonl")}
    assert listed == {
        "cat/flat.png": "blurred",
        "cat/plain.png": "plain",
        "cat/smooth.png": "blurred",
        "dog/cut.png": "corrupt",
        "dog/small.png": "too-small",
        "dog/text.png": "corrupt",
        "loose.png": "unlabelled",
    }


def test_a_folder_without_categories_is_refused(bench: Bench) -> None:
    (bench.root / "empty").mkdir()
    (problem,) = bench.rejected({"source": "image_folder", "path": str(bench.root / "empty")})
    assert "no images" in problem["message"]


# Shapes that cost a few bytes to declare.


def npy(shape: tuple[int, ...], content: bytes = bytes(64)) -> bytes:
    """An array that declares a shape, whatever its bytes."""
    header = str({"descr": "<f4", "fortran_order": False, "shape": shape}).encode().ljust(501) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + content


@pytest.mark.parametrize(
    ("shape", "says"),
    [
        ((1 << 50, 4), "GiB are free"),
        ((10**400, 4), "GiB are free"),
        ((-1, 4), "it has the shape (-1, 4)"),
    ],
)
def test_an_archive_that_declares_more_than_there_is_room_for_is_refused(
    bench: Bench, shape: tuple[int, ...], says: str
) -> None:
    with zipfile.ZipFile(bench.root / "a.npz", "w") as archive:
        archive.writestr("x.npy", npy(shape))
        archive.writestr("y.npy", npy((16,)))
    (problem,) = bench.rejected({"source": "npz", "path": str(bench.root / "a.npz")})
    assert problem["path"] == "data.x"
    assert says in problem["message"]


@pytest.mark.parametrize("shape", [(1 << 40, 4), (2, 1 << 45)])
def test_a_set_of_rows_that_were_never_written_is_refused_for_its_size(bench: Bench, shape: tuple[int, ...]) -> None:
    with h5py.File(bench.root / "a.h5", "w") as file:
        file.create_dataset("x", shape, "<f4", chunks=(1, 4))
        file.create_dataset("y", shape[:1], "<f4", chunks=(2,))
    (problem,) = bench.rejected({"source": "hdf5", "path": str(bench.root / "a.h5")})
    assert problem["path"] == "data.x"
    assert "GiB are free" in problem["message"]
