from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agents.data_manager import synthetic
from agents.data_manager.splitting import assign
from contracts.data_manager import DatasetRejected
from contracts.errors import InvalidRequest
from contracts.request import read_request
from contracts.request.data import Split, Synthetic
from tests.agents.preparing import Bench, finding


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def visits(bench: Bench, rows: int = 200) -> dict[str, Any]:
    """Patients with several visits each, in no order of time."""
    lines = [
        f"{n}.25,p{n * 7 % 23},2024-{1 + n * 5 % 12:02}-{1 + n % 28:02}T{n % 24:02}:00,{('well', 'ill')[n % 2]}"
        for n in range(rows)
    ]
    return bench.csv("size,patient,day,kind\n" + "\n".join(lines), "visits.csv")


# Groups, folds, time.


def test_no_group_is_in_two_splits() -> None:
    groups = np.arange(1000) % 37
    found = assign(1000, Split(), groups=groups)
    assert sorted(np.concatenate(list(found.values()))) == list(range(1000))
    met = [set(groups[rows]) for rows in found.values()]
    assert len(met[0] | met[1] | met[2]) == sum(map(len, met)) == 37
    assert all(abs(len(found[name]) - share) < 60 for name, share in (("train", 800), ("val", 100), ("test", 100)))


def test_where_a_group_falls_depends_on_its_name_and_not_on_the_order_of_rows() -> None:
    groups = np.arange(400) % 40
    turned = groups[::-1]
    one, other = assign(400, Split(), groups=groups), assign(400, Split(), groups=turned)
    assert set(groups[one["val"]]) == set(turned[other["val"]])


@pytest.mark.parametrize("more", [{}, {"test": 0.2}])
@pytest.mark.parametrize("grouped", [False, True])
def test_every_row_validates_in_exactly_one_fold(more: dict[str, float], grouped: bool) -> None:
    groups = np.arange(300) % 30 if grouped else None
    folds = [assign(300, Split(folds=5, fold=fold, **more), groups=groups) for fold in range(5)]
    tests = [fold.get("test", np.empty(0, int)) for fold in folds]
    assert all(np.array_equal(one, tests[0]) for one in tests)
    assert len(tests[0]) == (60 if more else 0)
    held = [row for fold in folds for row in fold["val"]]
    assert sorted([*held, *tests[0]]) == list(range(300))


def test_no_group_is_torn_by_folds() -> None:
    groups = np.arange(300) % 30
    for fold in range(5):
        found = assign(300, Split(folds=5, fold=fold), groups=groups)
        assert not set(groups[found["train"]]) & set(groups[found["val"]])


@pytest.mark.parametrize("seed", range(5))
def test_as_many_groups_as_splits_fill_every_split(seed: int) -> None:
    groups = np.repeat([0, 1, 2], [2, 50, 4])
    found = assign(56, Split(train=0.2, val=0.5, test=0.3, seed=seed), groups=groups)
    assert [len(np.unique(groups[rows])) for rows in found.values()] == [1, 1, 1]


def test_folds_have_their_share_of_every_class() -> None:
    classes = np.repeat([0, 1, 2], [500, 250, 50])
    for fold in range(5):
        found = assign(800, Split(folds=5, fold=fold), classes)
        assert np.bincount(classes[found["val"]]).tolist() == [100, 50, 10]


def test_the_latest_rows_test(bench: Bench) -> None:
    said = bench.prepared(visits(bench) | {"split": {"time": "day"}, "ignore": ["patient"]})
    assert list(said.facts.features) == ["size"]
    days = {n + 0.25: (1 + n * 5 % 12, 1 + n % 28, n % 24) for n in range(200)}
    columns = [bench.dataset(said).columns(name)["x"].reshape(-1).tolist() for name in ("train", "val", "test")]
    train, val, test = ([days[one] for one in split] for split in columns)
    assert max(train) <= min(val)
    assert max(val) <= min(test)


def test_a_column_of_groups_is_no_feature_and_never_torn(bench: Bench) -> None:
    said = bench.prepared(visits(bench) | {"split": {"group": "patient"}, "ignore": ["day"]})
    assert list(said.facts.features) == ["size"]
    patients = [
        {int(one) * 7 % 23 for one in bench.dataset(said).columns(name)["x"].reshape(-1)}
        for name in ("train", "val", "test")
    ]
    assert sum(map(len, patients)) == 23


@pytest.mark.parametrize(
    ("split", "path", "says"),
    [
        ({"group": "patent"}, "data.split.group", "Did you mean 'patient'?"),
        ({"group": "kind"}, "data.split.group", "2 groups do not fill 3 splits"),
        ({"time": "patient"}, "data.path", "200 of 200 rows (100%) are corrupt"),
        ({"folds": 500}, "data.split.folds", "200 rows do not fill 500 folds"),
    ],
)
def test_a_split_that_cannot_be_is_refused(bench: Bench, split: dict[str, Any], path: str, says: str) -> None:
    data = visits(bench)
    if split.get("group") == "kind":
        data |= {"target": "patient"}
    problem = bench.rejected(data | {"split": split, "ignore": ["day"]})[0]
    assert problem["path"] == path
    assert says in problem["message"] + problem["cure"]


@pytest.mark.parametrize(
    ("split", "says"),
    [
        ({"folds": 5, "fold": 5}, "there is no fold 5"),
        ({"fold": 1}, "of no folds"),
        ({"folds": 5, "val": 0.5}, "add up to"),
        ({"folds": 5, "val": 0.5, "train": 0.5}, "5 folds do not validate with 0.5"),
        ({"time": "day", "group": "patient"}, "no groups, folds or strata"),
    ],
)
def test_a_split_that_contradicts_itself_is_refused_unread(split: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        read_request({"data": {"source": "iris", "split": split}, "model": {"architecture": "mlp"}})


def test_folds_survive_being_written_out_and_read_again() -> None:
    for split in ({"folds": 3}, {"folds": 7, "test": 0.1}):
        request = read_request({"data": {"source": "iris", "split": split}, "model": {"architecture": "mlp"}})
        assert read_request(request.resolved()) == request


def test_a_source_without_columns_has_no_groups(bench: Bench) -> None:
    (problem,) = bench.rejected({"source": "iris", "split": {"group": "site"}})
    assert problem["path"] == "data.split.group"


# Synthetic rows.


def rare(bench: Bench) -> dict[str, Any]:
    lines = [f"{n * 37 % 101 / 7:.6f},{n % 2},{n * n % 89},{'rare' if n % 10 == 0 else 'common'}" for n in range(400)]
    return bench.csv("a,flag,b,kind\n" + "\n".join(lines)) | {"tolerance": 0.3}


def test_rare_classes_are_filled_up_in_the_training_split_alone(bench: Bench) -> None:
    plain = bench.prepared(rare(bench))
    said = bench.prepared(rare(bench) | {"synthetic": {"share": 0.5}})
    before, after = (bench.dataset(one) for one in (plain, said))
    counts = np.bincount(before.columns("train")["y"])
    assert np.bincount(after.columns("train")["y"]).tolist() == [counts[0], counts[0] // 2]
    for name in ("x", "y"):
        assert np.array_equal(before.columns("val")[name], after.columns("val")[name])
        assert np.array_equal(before.columns("train")[name], after.columns("train")[name][: sum(counts)])
    assert finding(said, "synthetic").count == counts[0] // 2 - counts[1]


def test_every_synthetic_row_lies_between_its_named_parents(bench: Bench) -> None:
    data = rare(bench)
    said = bench.prepared(data | {"synthetic": {"share": 1}})
    rows = [line.split(",") for line in Path(data["path"]).read_text().splitlines()]
    train = bench.dataset(said).columns("train")["x"]
    listed = bench.beside(said, "synthetic.jsonl")
    assert len(listed) == finding(said, "synthetic").count
    for one in listed:
        first, second = (rows[int(name.removeprefix("row "))] for name in one["parents"])
        assert first != second
        assert first[3] == second[3] == one["class"] == "rare"
        made = train[one["row"] - 1]
        for feature in (0, 2):
            start, end = float(first[feature]), float(second[feature])
            assert made[feature] == pytest.approx(start + one["share"] * (end - start), abs=1e-4)
        assert made[1] == float((first if one["share"] < 0.5 else second)[1])


def test_synthetic_rows_are_a_function_of_the_request(bench: Bench) -> None:
    asked = {"synthetic": {"share": 1}}
    one = bench.prepared(rare(bench) | asked)
    other = Bench(bench.root)
    other.store = bench.root / "other"
    assert other.prepared(rare(bench) | asked).root == one.root
    assert other.prepared(rare(bench) | {"synthetic": {"share": 1, "seed": 1}}).root != one.root


def test_the_neighbours_are_the_nearest_of_the_class() -> None:
    levels = np.array([[0, 0], [1, 0], [0, 2], [9, 9], [9, 8]], float)
    assert synthetic._neighbours(levels, 2).tolist() == [[1, 2], [0, 2], [0, 1], [4, 2], [3, 2]]


def test_pixels_between_two_images_are_whole_numbers() -> None:
    x = np.random.default_rng(0).integers(0, 256, (40, 1, 3, 3), np.uint8)
    y = (np.arange(40) % 8 == 0).astype(np.int64)
    some = list(synthetic.synthesise(x, y, np.arange(40), ("a", "b"), Synthetic(share=1.0)))
    assert {one.label for one in some} == {1}
    assert sum(len(one.x) for one in some) == 30
    assert all(one.x.dtype == np.uint8 for one in some)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ({"source": "diabetes", "synthetic": {"share": 1}}, "made for classes"),
        ({"source": "csv"}, "has one training row"),
    ],
)
def test_synthetic_rows_that_cannot_be_made_are_refused(bench: Bench, data: dict[str, Any], says: str) -> None:
    if data["source"] == "csv":
        lines = "".join(f"{n},{'only' if n == 0 else 'many'}\n" for n in range(50))
        for seed in range(20):
            data = bench.csv("a,kind\n" + lines) | {
                "synthetic": {"share": 1},
                "split": {"seed": seed, "stratify": False},
            }
            answer = bench.prepare(data)
            if isinstance(answer, DatasetRejected) and says in answer.problems[0]["message"]:
                return
        pytest.fail("the only row of its class never trains")
    (problem,) = bench.rejected(data)
    assert problem["path"] == "data.synthetic"
    assert says in problem["message"]
