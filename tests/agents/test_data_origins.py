"""What the source calls the rows of each split is kept, whatever was set aside, split off or made up between."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from bus.blobs import DirectoryBlobs
from contracts.data_manager import DatasetPrepared
from contracts.errors import InvalidInput, NotFound
from runtime.log.row_names import RowNames, RowPlace
from tests.agents.preparing import Bench, table

LEFT_OUT = {"row7": "nothing,49,odd", "row9": "9.5,81,", "row20": "nothing,400,even"}


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def names(bench: Bench, said: DatasetPrepared) -> RowNames:
    return RowNames(said, DirectoryBlobs(bench.store.parent))


def broken(bench: Bench, **changes: object) -> DatasetPrepared:
    return bench.prepared(bench.csv(table(**LEFT_OUT)) | {"tolerance": 0.2, "split": {"seed": 3}} | changes)


def test_every_row_of_every_split_is_called_by_its_number_in_the_source(bench: Bench) -> None:
    said = broken(bench)
    called, seen = names(bench, said), []
    for split, rows in said.splits.items():
        lengths = bench.dataset(said).columns(split)["x"][:, 0]
        for row in range(1, rows + 1):
            number = int(lengths[row - 1] - 0.5)
            assert called.of(RowPlace(split, row)) == f"row {number}"
            assert called.find(str(number)) == called.find(f"row {number}") == RowPlace(split, row)
            seen.append(number)
    assert sorted({*range(1, 41)} - {*seen}) == [7, 9, 20]


def test_a_row_that_was_set_aside_is_told_with_the_reason(bench: Bench) -> None:
    called = names(bench, broken(bench))
    for number, kind in ((7, "corrupt"), (9, "unlabelled")):
        told = called.aside(f"row {number}")
        assert told is not None
        assert told["kind"] == kind
        with pytest.raises(NotFound, match="no row is called"):
            called.find(str(number))
    assert called.aside("2") is None, "row 20 begins with the same digit"
    assert called.aside("1") is None


def test_a_place_that_no_split_has_is_refused_with_those_there_are(bench: Bench) -> None:
    said = broken(bench)
    called = names(bench, said)
    assert called.find("val:1") == RowPlace("val", 1)
    with pytest.raises(InvalidInput) as refused:
        called.find("train:900")
    assert refused.value.cure == f"Choose from train:1 to train:{said.splits['train']}."


def test_images_are_called_by_their_files(bench: Bench) -> None:
    image = pytest.importorskip("PIL.Image")
    for category in ("cat", "dog"):
        (bench.root / "images" / category).mkdir(parents=True)
        for n in range(12):
            pixels = np.random.default_rng(n + 100 * ord(category[0])).integers(0, 255, (20, 20, 3), np.uint8)
            image.fromarray(pixels).save(bench.root / "images" / category / f'n "{n}".png')
    said = bench.prepared({"source": "image_folder", "path": str(bench.root / "images"), "height": 8, "width": 8})
    called, found = names(bench, said), set()
    for split, rows in said.splits.items():
        labels = bench.dataset(said).columns(split)["y"]
        for row in range(1, rows + 1):
            file = called.of(RowPlace(split, row))
            assert file is not None
            assert file.startswith(("cat/", "dog/")[labels[row - 1]])
            assert called.find(file) == RowPlace(split, row)
            found.add(file)
    assert len(found) == 24
    with pytest.raises(NotFound, match="knows rows by a file"):
        called.find("cat/none.png")


def test_synthetic_rows_are_called_by_their_parents(bench: Bench) -> None:
    lines = ["length,width,kind", *(f"{n}.5,{n * n},{'rare' if n % 5 == 0 else 'common'}" for n in range(1, 61))]
    said = bench.prepared(bench.csv("\n".join(lines) + "\n") | {"synthetic": {"share": 1}})
    listed = bench.beside(said, "synthetic.jsonl")
    assert listed
    one = listed[-1]
    assert one["row"] == said.splits["train"]
    assert names(bench, said).of(RowPlace("train", one["row"])) == f"made from {' and '.join(one['parents'])}"


def test_rows_of_splits_that_a_workload_made_have_places_only(bench: Bench) -> None:
    said = bench.prepared({"source": "iris"})
    placed = names(bench, said.model_copy(update={"origins": None}))
    assert placed.of(RowPlace("train", 1)) is None
    assert placed.find("train:1") == RowPlace("train", 1)
    with pytest.raises(NotFound, match="knows rows by nothing"):
        placed.find("17")


def test_a_second_session_is_told_the_same_names(bench: Bench) -> None:
    first = bench.prepared({"source": "iris"})
    second = bench.prepared({"source": "iris"})
    assert second.reused
    assert first.origins is not None
    assert second.origins == first.origins


def test_names_that_were_never_kept_or_are_gone_are_made_again_for_the_same_dataset(bench: Bench) -> None:
    first = bench.prepared({"source": "iris"})
    assert first.origins is not None
    DirectoryBlobs(bench.store.parent).remove(first.origins.blobs["val"])
    again = bench.prepared({"source": "iris"})
    assert (again.root, again.reused, again.origins) == (first.root, False, first.origins)
    (note,) = (bench.store / "index").iterdir()
    noted = json.loads(note.read_bytes())
    note.write_text(json.dumps({name: one for name, one in noted.items() if name != "origins"}))
    once_more = bench.prepared({"source": "iris"})
    assert (once_more.root, once_more.reused, once_more.origins) == (first.root, False, first.origins)
