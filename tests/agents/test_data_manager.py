from __future__ import annotations

import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from agents.data_manager.agent import DataManager
from agents.data_manager.quality import firsts
from agents.data_manager.sources.opening import open_text
from agents.data_manager.sources.table_formats import CsvText
from agents.data_manager.splitting import assign
from agents.data_manager.store import DatasetStore
from bus import subjects
from contracts.data_manager import DatasetPrepared, DatasetRejected
from contracts.errors import ChildDied, InvalidRequest
from contracts.request.data import Split
from runtime.engine import workload as engine
from runtime.engine.dataset import Dataset
from runtime.engine.facts import Facts
from runtime.home.workloads import Workloads, inspect_file
from runtime.jobs.children import Children
from tests.agents.cases import Place, fork_of
from tests.agents.preparing import Bench, finding, table


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


# Sources that need no file.


@pytest.mark.parametrize("name", ["digits", "breast_cancer", "wine", "iris", "diabetes"])
def test_a_bundled_set_holds_exactly_the_rows_that_scikit_learn_gives(bench: Bench, name: str) -> None:
    import sklearn.datasets

    more = {"scaled": False} if name == "diabetes" else {}
    theirs = getattr(sklearn.datasets, f"load_{name}")(**more)
    said = bench.prepared({"source": name})
    dataset = bench.dataset(said)
    ours = [dataset.columns(split) for split in ("train", "val", "test")]
    x = np.concatenate([one["x"].reshape(len(one["x"]), -1) for one in ours])
    y = np.concatenate([one["y"] for one in ours])
    wanted = np.column_stack([theirs.data, theirs.target]).astype(np.float32)
    found = np.column_stack([x, y]).astype(np.float32)
    assert sorted(map(tuple, found.tolist())) == sorted(map(tuple, wanted.tolist()))
    if name != "diabetes":
        assert list(dataset.facts.labels) == [str(one) for one in theirs.target_names]
    if name != "digits":
        assert list(dataset.facts.features) == list(theirs.feature_names)


def test_digits_are_images_of_one_channel(bench: Bench) -> None:
    said = bench.prepared({"source": "digits"})
    facts = Facts.from_json(said.facts.model_dump())
    assert (facts.task, facts.shape, facts.classes) == ("classification", (1, 8, 8), 10)
    assert said.splits == {"train": 1437, "val": 180, "test": 180}
    assert said.rows == 1797


def test_generated_sets_are_a_function_of_their_arguments(bench: Bench) -> None:
    first = bench.prepared({"source": "blobs", "rows": 300, "seed": 7})
    assert bench.prepared({"source": "blobs", "rows": 300, "seed": 8}).root != first.root
    other = Bench(bench.root / "elsewhere")
    again = other.prepared({"source": "blobs", "rows": 300, "seed": 7})
    assert (again.root, again.reused) == (first.root, False)


def test_circles_lie_on_two_radii(bench: Bench) -> None:
    said = bench.prepared({"source": "circles", "rows": 200, "noise": 0.0, "factor": 0.5})
    train = bench.dataset(said).columns("train")
    radius = np.hypot(*train["x"].T)
    assert np.allclose(radius, np.where(train["y"] == 0, 1.0, 0.5), atol=1e-5)


# Once per source.


def test_a_second_session_reuses_the_dataset(bench: Bench) -> None:
    first = bench.prepared({"source": "digits"})
    second = bench.prepared({"source": "digits"})
    assert (first.reused, second.reused) == (False, True)
    assert second.model_copy(update={"reused": False}) == first


def test_a_csv_that_moved_is_still_the_same_data(bench: Bench) -> None:
    first = bench.prepared(bench.csv(table(), "here.csv"))
    second = bench.prepared(bench.csv(table(), "there.csv"))
    assert (second.root, second.reused, second.source_digest) == (first.root, True, first.source_digest)


def test_a_damaged_dataset_is_noticed_and_made_again(bench: Bench) -> None:
    first = bench.prepared({"source": "digits"})
    file = bench.store / first.root / "train.x.bin"
    file.chmod(0o600)
    file.write_bytes(bytes([file.read_bytes()[0] ^ 1]) + file.read_bytes()[1:])
    second = bench.prepared({"source": "digits"})
    assert (second.root, second.reused) == (first.root, False)
    bench.dataset(second).verify()
    assert bench.prepared({"source": "digits"}).reused


def test_what_a_dead_preparation_left_behind_is_removed(bench: Bench) -> None:
    left = bench.store / ".new-left"
    left.mkdir(parents=True)
    (left / "train.x.bin").write_bytes(b"half")
    bench.prepared({"source": "iris"})
    assert not list(bench.store.glob(".new-*"))


def test_what_a_living_preparation_writes_is_left_alone(bench: Bench) -> None:
    with DatasetStore(bench.store).room() as fresh:
        bench.prepared({"source": "iris"})
        assert fresh.exists()
    assert not fresh.exists()


def test_another_split_is_another_dataset(bench: Bench) -> None:
    roots = {bench.prepared({"source": "iris", "split": {"seed": seed}}).root for seed in range(3)}
    assert len(roots) == 3


# Splits.


def test_every_row_is_in_exactly_one_split() -> None:
    found = assign(1003, Split(train=0.7, val=0.2, test=0.1), None)
    assert {name: len(rows) for name, rows in found.items()} == {"train": 702, "val": 201, "test": 100}
    assert sorted(np.concatenate(list(found.values()))) == list(range(1003))


def test_a_stratified_split_gives_every_class_its_share() -> None:
    classes = np.repeat([0, 1, 2], [600, 300, 100])
    found = assign(1000, Split(), classes)
    assert np.bincount(classes[found["val"]]).tolist() == [60, 30, 10]
    assert np.abs(np.bincount(classes[found["test"]]) - [60, 30, 10]).max() <= 1


def test_rows_are_drawn_by_the_seed_of_the_split_alone() -> None:
    one, same, other = (assign(100, Split(seed=seed), None) for seed in (1, 1, 2))
    assert all(np.array_equal(one[name], same[name]) for name in one)
    assert not np.array_equal(one["val"], other["val"])


def test_without_a_test_share_there_is_no_test_split(bench: Bench) -> None:
    said = bench.prepared({"source": "iris", "split": {"train": 0.8, "val": 0.2, "test": 0}})
    assert said.splits == {"train": 120, "val": 30}


def test_the_split_of_a_regression_cannot_be_stratified_and_says_so(bench: Bench) -> None:
    said = bench.prepared({"source": "diabetes", "split": {"stratify": True}})
    assert finding(said, "not-stratified").count == 1


def test_too_few_rows_are_refused(bench: Bench) -> None:
    (problem,) = bench.rejected(bench.csv(table(rows=9)))
    assert "9 rows are too few" in problem["message"]


# CSV: what columns are.


def test_words_become_one_column_per_category(bench: Bench) -> None:
    text = "size,colour,kind\n" + "".join(f"{n},{'red' if n % 3 else 'blue'},{'ab'[n % 2]}\n" for n in range(40))
    said = bench.prepared(bench.csv(text))
    facts = bench.dataset(said).facts
    assert facts.features == ("size", "colour=blue", "colour=red")
    assert facts.labels == ("a", "b")
    train = bench.dataset(said).columns("train")
    assert train["x"].dtype == np.float32
    assert set(train["x"][:, 1] + train["x"][:, 2]) == {1.0}


def test_few_whole_numbers_are_classes_and_the_event_says_so(bench: Bench) -> None:
    text = "a,kind\n" + "".join(f"{n}.25,{n % 3}\n" for n in range(60))
    said = bench.prepared(bench.csv(text))
    assert (said.facts.task, list(said.facts.labels)) == ("classification", ["0", "1", "2"])
    assert finding(said, "task-inferred")
    numbers = bench.prepared(bench.csv(text) | {"task": "regression"})
    assert numbers.facts.task == "regression"


def test_many_numbers_are_a_regression(bench: Bench) -> None:
    text = "a,kind\n" + "".join(f"{n},{n / 7}\n" for n in range(60))
    said = bench.prepared(bench.csv(text))
    assert said.facts.task == "regression"
    assert bench.dataset(said).columns("train")["y"].dtype == np.float32


def test_semicolons_byte_order_marks_and_blank_lines_are_understood(bench: Bench) -> None:
    plain, strange = table(), "\ufeff" + table().replace(",", ";").replace("\n", "\r\n\r\n")
    assert bench.prepared(bench.csv(strange, "b.csv")).root == bench.prepared(bench.csv(plain, "a.csv")).root


# CSV: what is broken.


@pytest.mark.parametrize(
    ("line", "kind", "says"),
    [
        ("x?,4,odd", "corrupt", "row 7 (line 8): 'x?' in 'length' is not a number"),
        ("1_0,4,odd", "corrupt", "row 7 (line 8): '1_0' in 'length' is not a number"),
        ("1,2,3,odd", "corrupt", "row 7 (line 8): 4 cells, the header has 3"),
        (",4,odd", "missing", "row 7 (line 8): no value in 'length'"),
        ("1,NA,odd", "missing", "row 7 (line 8): no value in 'width'"),
        ("1,inf,odd", "non-finite", "row 7 (line 8): 'inf' in 'width'"),
        ("1,1e39,odd", "non-finite", "row 7 (line 8): a value beyond 3.4e38 in 'width'"),
        ("1,2,", "unlabelled", "row 7 (line 8): no value in 'kind'"),
        ("3.5,9,odd", "duplicate", "row 7 repeats row 3"),
    ],
)
def test_a_broken_row_is_named_and_set_aside(bench: Bench, line: str, kind: str, says: str) -> None:
    said = bench.prepared(bench.csv(table(row7=line)))
    assert said.rows == 39
    assert finding(said, kind).where == [says]
    assert finding(said, kind).severity == "warning"


def test_too_many_broken_rows_are_refused_with_every_reason_and_its_cure(bench: Bench) -> None:
    (problem,) = bench.rejected(bench.csv(table(row3="x,1,odd", row5="1,,odd", row6="1,2,", row9=",2,odd")))
    assert problem["message"] == (
        "4 of 40 rows (10%) are corrupt, missing or unlabelled, more than `data.tolerance` (5%): "
        "1 corrupt (row 3 (line 4): 'x' in 'length' is not a number); "
        "2 missing (row 5 (line 6): no value in 'width'; row 9 (line 10): no value in 'length'); "
        "1 unlabelled (row 6 (line 7): no value in 'kind')"
    )
    assert [word in problem["cure"] for word in ("Corrupt: ", "Missing: ", "Unlabelled: ")] == [True] * 3
    assert problem["cure"].endswith("`data.tolerance: 0.1` sets these aside.")


def test_common_repeats_are_refused_unless_they_are_the_data(bench: Bench) -> None:
    text = "a,kind\n" + "".join(f"{n % 12},{'ab'[n % 12 % 2]}\n" for n in range(120))
    (problem,) = bench.rejected(bench.csv(text))
    assert (
        "108 of 120 rows (90%) are duplicate, more than `data.tolerance` (5%): 108 duplicate (row 13 repeats row 1;"
        in problem["message"]
    )
    assert "`duplicates: keep`" in problem["cure"]
    said = bench.prepared(bench.csv(text) | {"duplicates": "keep"})
    assert said.rows == 120
    assert finding(said, "duplicate-kept").count == 108
    assert finding(said, "leak-val").severity == "warning"


def test_rows_of_val_that_are_also_in_train_are_refused_when_they_are_many(bench: Bench) -> None:
    text = "a,b,kind\n" + "".join(f"{n},1,{'ab'[n % 2]}\n{n},1,{'ba'[n % 2]}\n" for n in range(100))
    problems = bench.rejected(bench.csv(text))
    assert [one["path"] for one in problems] == ["data.split", "data.split"]
    assert "of 20 val rows are also in train (val row" in problems[0]["message"]
    assert "5%" in problems[0]["cure"]
    said = bench.prepared(bench.csv(text) | {"duplicates": "keep"})
    assert finding(said, "contradiction").count == 100
    assert finding(said, "constant-feature").where == ["'b'"]


def test_few_rows_of_val_that_are_also_in_train_are_set_aside_and_named(bench: Bench) -> None:
    lines = [f"{n},{'ab'[n % 2]}" for n in range(400)] + [f"{n},{'ba'[n % 2]}" for n in range(0, 400, 100)]
    said = bench.prepared(bench.csv("a,kind\n" + "\n".join(lines)) | {"tolerance": 0.2})
    leaks = [one for name in ("leak-val", "leak-test") if (one := finding(said, name))]
    assert said.rows == 404 - sum(one.count for one in leaks)
    assert leaks
    assert all(" is train row " in where for one in leaks for where in one.where)
    again = Bench(bench.root).dataset(said)
    train = set(again.columns("train")["x"].reshape(-1).tolist())
    assert not train & set(again.columns("val")["x"].reshape(-1).tolist())


def test_only_rows_that_are_really_equal_are_repeats() -> None:
    column = np.array([[1, 2], [2, 1], [1, 2], [0, 0], [2, 1]], np.float32)
    assert firsts([column]).tolist() == [0, 1, 0, 3, 1]
    assert firsts([column, np.array([0, 0, 1, 0, 0])]).tolist() == [0, 1, 2, 3, 1]


@pytest.mark.parametrize(
    ("text", "path", "says", "cure"),
    [
        ("a,b,kinds\n1,2,x\n", "data.target", "no column 'kind'", "Did you mean 'kinds'?"),
        ("a,a,kind\n1,2,x\n", "data.path", "2 columns are called 'a'", "name of its own"),
        (",a,kind\n1,2,x\n", "data.path", "column 1 has no name", "index=False"),
        ("kind\nx\n", "data.path", "the table has 1 columns", "at least two columns"),
        ("", "data.path", "the table has 0 columns", "first line"),
        ("a,kind\n", "data.path", "no values", "Remove the column"),
        (table().replace("even", "odd"), "data.target", "all rows are of the class 'odd'", "another target"),
        ("a,kind\n" + "".join(f"1,w{n}\n" for n in range(50)), "data.target", "50 different values", "another target"),
        (
            "a,b,kind\n" + "".join(f"w{n},{n},{n % 2}\n" for n in range(150)),
            "data.path",
            "'a' holds more than 100 different words",
            "Remove the column",
        ),
        (table().encode() + b"1,2,\xe9t\xe9\n", "data.path", "line 42 is not UTF-8", "UTF-8"),
    ],
)
def test_a_table_that_cannot_be_meant_is_refused(
    bench: Bench, text: str | bytes, path: str, says: str, cure: str
) -> None:
    (problem,) = bench.rejected(bench.csv(text))
    assert problem["path"] == path
    assert says in problem["message"]
    assert cure in problem["cure"]


def test_a_target_of_words_is_no_regression(bench: Bench) -> None:
    (problem,) = bench.rejected(bench.csv(table()) | {"task": "regression"})
    assert "holds words such as 'even'" in problem["message"]


def test_a_file_that_changes_while_it_is_read_is_refused(bench: Bench) -> None:
    data = bench.csv(table())
    with Path(data["path"]).open("rb") as file:
        text = CsvText(file, bench.tell)  # type: ignore[arg-type]
        Path(data["path"]).write_text(table().replace("3.5", "4.5"))
        with pytest.raises(InvalidRequest, match="changed while it was read"):
            list(text.blocks(text.names()))


# Which files may be read.


def test_a_file_outside_the_allowed_folders_is_refused_naming_the_option(bench: Bench, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    inside = tmp_path / "inside"
    outside.mkdir()
    inside.mkdir()
    (outside / "secret.csv").write_text(table())
    link = inside / "link.csv"
    link.symlink_to(outside / "secret.csv")
    for path in (outside / "secret.csv", link):
        with pytest.raises(InvalidRequest) as caught:
            open_text(str(path), [inside])
        assert "outside the folders" in caught.value.problems[0].message
        assert f"--data-root {outside}" in caught.value.cure


def test_a_link_inside_the_allowed_folders_is_followed(bench: Bench, tmp_path: Path) -> None:
    data = bench.csv(table())
    (tmp_path / "link.csv").symlink_to(data["path"])
    assert bench.prepared(data | {"path": str(tmp_path / "link.csv")}).rows == 40


@pytest.mark.parametrize("path", ["table.csv", "../table.csv", "~/table.csv"])
def test_a_path_must_be_absolute(bench: Bench, path: str) -> None:
    (problem,) = bench.rejected({"source": "csv", "path": path, "target": "kind"})
    assert problem["path"] == "data.path"
    assert "is not an absolute path" in problem["message"]


def test_a_file_that_is_not_there_is_refused_by_name(bench: Bench, tmp_path: Path) -> None:
    (problem,) = bench.rejected({"source": "csv", "path": str(tmp_path / "nowhere.csv"), "target": "kind"})
    assert str(tmp_path / "nowhere.csv") in problem["message"]
    assert "No such file" in problem["message"]


def test_pickles_are_refused_by_name_and_by_content(bench: Bench) -> None:
    content = pickle.dumps({"a": [1, 2]})
    for name in ("table.pkl", "table.csv"):
        (problem,) = bench.rejected(bench.csv(content, name))
        assert "pickle" in problem["message"]
        assert "CSV" in problem["cure"]


def test_folders_pipes_and_binary_files_are_refused(bench: Bench, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    for name in ("pipe.csv", "."):
        (problem,) = bench.rejected({"source": "csv", "path": str(tmp_path / name), "target": "kind"})
        assert "is not a regular file" in problem["message"]
    for content, what in ((b"PK\x03\x04rest", "a zip archive"), (b"a,b\0c", "binary"), (b"\x1f\x8brest", "compressed")):
        (problem,) = bench.rejected(bench.csv(content))
        assert what in problem["message"]


def test_a_quote_that_is_never_closed_is_told_with_its_line(bench: Bench) -> None:
    (problem,) = bench.rejected(bench.csv(table(row37='37.5,"1369,odd')))
    assert problem["message"] == "the quote that opens in line 38 is never closed"
    closed = bench.csv(table(row37='37.5,1369,"odd"', row40='"40.5",1600,"even"'), "closed.csv")
    assert bench.prepared(closed).rows == 40


# Rows of a user's own.


class Own(engine.Workload):
    class Options(engine.Workload.Options):
        gives: str = "columns"

    def build(self, o: Any, facts: Any) -> Any:
        raise NotImplementedError

    loss = build

    def data(self, o: Any) -> Any:
        if o.gives.endswith(".txt"):
            return {"x": Path(o.gives).read_bytes()}
        x = np.arange(80, dtype=np.float64).reshape(40, 2)
        return {
            "columns": {"x": x, "y": np.arange(40) % 2},
            "numbers": {"x": x, "y": np.linspace(0, 1, 40)},
            "splits": {name: {"x": x, "y": np.arange(40) % 2} for name in ("train", "val")},
            "uneven": {"x": x, "y": np.arange(39)},
            "objects": {"x": np.array([{}] * 40), "y": np.arange(40) % 2},
            "broken": {"x": np.where(x == 7, np.nan, x), "y": np.arange(40) % 2},
            "worse": {"x": np.where(x > 40, np.nan, x), "y": np.arange(40) % 2},
            "strange": {"first": {"x": x}},
            "list": [1],
            "nothing": None,
        }[o.gives]


@pytest.fixture
def own() -> dict[str, Any]:
    engine.register("own", Own)
    return {"source": "workload", "workload": "own"}


def test_a_relative_path_of_a_workload_that_is_not_found_is_told_with_the_folder_it_was_looked_for_in(
    bench: Bench, own: dict[str, Any]
) -> None:
    (problem,) = bench.rejected(own | {"options": {"gives": "corpus.txt"}})
    assert problem["path"] == "data.options.gives"
    assert str(Path.cwd()) in problem["message"]
    assert problem["cure"] == "Write the whole path, such as /data/corpus.txt."


def test_a_workload_may_give_columns_of_classes_or_numbers(bench: Bench, own: dict[str, Any]) -> None:
    classes = bench.prepared(own)
    assert (classes.facts.task, classes.rows) == ("classification", 40)
    numbers = bench.prepared(own | {"options": {"gives": "numbers"}})
    assert numbers.facts.task == "regression"


def test_a_workload_may_split_for_itself(bench: Bench, own: dict[str, Any]) -> None:
    said = bench.prepared(own | {"options": {"gives": "splits"}})
    assert said.splits == {"train": 40, "val": 40}
    assert finding(said, "workload-splits")
    assert finding(said, "leak-val").count == 40


def test_rows_of_a_workload_that_are_not_finite_are_set_aside(bench: Bench, own: dict[str, Any]) -> None:
    said = bench.prepared(own | {"options": {"gives": "broken"}})
    assert said.rows == 39
    assert finding(said, "non-finite").where == ["row 4"]


@pytest.mark.parametrize(
    ("gives", "says"),
    [
        ("uneven", "the columns differ in length"),
        ("objects", "the column 'x' has the dtype '|O'"),
        ("worse", "20 of 40 rows (50%) are non-finite"),
        ("strange", "gave the splits 'first'"),
        ("list", "gave list, not columns"),
        ("nothing", "has no data of its own"),
    ],
)
def test_what_a_workload_gives_is_checked(bench: Bench, own: dict[str, Any], gives: str, says: str) -> None:
    (problem,) = bench.rejected(own | {"options": {"gives": gives}})
    assert says in problem["message"]
    assert problem["cure"]


def test_options_that_a_workload_does_not_know_are_refused(bench: Bench, own: dict[str, Any]) -> None:
    (problem,) = bench.rejected(own | {"options": {"gives": 3}})
    assert problem["path"] == "data.options.gives"


# The agent, with its jobs in children.

IN_CHILDREN = pytest.mark.asyncio(loop_scope="module")

MLP = {"architecture": "mlp", "hidden": [4]}


async def answered(place: Place, request: dict[str, Any], kind: str = "training") -> list[Any]:
    history = place.session(request, kind=kind)
    return await place.react(DataManager(place.ground), "prepare", history, history.facts[0])


@IN_CHILDREN
async def test_training_and_trials_are_answered_and_nothing_else_is(tmp_path: Path, children: Children) -> None:
    place = Place(tmp_path, children)
    request = {"data": {"source": "iris"}, "model": MLP}
    (first,), (second,) = await answered(place, request), await answered(place, request, "trial")
    assert isinstance(first, DatasetPrepared)
    assert (first.reused, second.reused) == (False, True)
    assert Dataset.open(place.blobs.root / "datasets" / first.root).root == first.root
    assert await answered(place, {"search": 1}, "search") == []
    assert await answered(place, {"export": 1}, "export") == []


@IN_CHILDREN
async def test_files_below_the_data_roots_may_be_read_and_no_others(tmp_path: Path, children: Children) -> None:
    for folder in ("project", "open", "closed"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "table.csv").write_text(table())
    place = Place(tmp_path / "project", children, data_roots=[str(tmp_path / "open")])
    said = {}
    for folder in ("project", "open", "closed"):
        data = {"source": "csv", "path": str(tmp_path / folder / "table.csv"), "target": "kind"}
        (said[folder],) = await answered(place, {"data": data, "model": MLP})
    assert [type(one) for one in said.values()] == [DatasetRejected, DatasetPrepared, DatasetRejected]
    assert f"--data-root {tmp_path / 'closed'}" in said["closed"].problems[0]["cure"]


@IN_CHILDREN
async def test_a_fork_has_its_parents_dataset_whatever_became_of_the_source(tmp_path: Path, children: Children) -> None:
    place = Place(tmp_path, children, data_roots=[str(tmp_path)])
    (tmp_path / "table.csv").write_text(table())
    request = {"data": {"source": "csv", "path": str(tmp_path / "table.csv"), "target": "kind"}, "model": MLP}
    parent = place.session(request)
    agent = DataManager(place.ground)
    (first,) = await place.react(agent, "prepare", parent, parent.facts[0])
    (tmp_path / "table.csv").write_text(table(rows=50))

    async def forked() -> Any:
        history = place.session(request, fork=fork_of(parent, 50, dataset=first.root))
        (said,) = await place.react(agent, "prepare", history, history.facts[0])
        return said

    assert await forked() == first.model_copy(update={"reused": True})
    shutil.rmtree(place.blobs.root / "datasets" / first.root)
    refused = await forked()
    assert isinstance(refused, DatasetRejected)
    assert f"was trained on {first.root}" in refused.problems[0]["message"]
    (tmp_path / "table.csv").write_text(table())
    again = await forked()
    assert (again.root, again.reused) == (first.root, False)


@IN_CHILDREN
async def test_a_long_reading_says_how_far_it_is(tmp_path: Path, children: Children) -> None:
    place = Place(tmp_path, children, data_roots=[str(tmp_path)])
    words = ["x" * 2000, "y" * 2000]
    (tmp_path / "wide.csv").write_text("a,kind\n" + "".join(f"{words[n % 2]},{n % 2}\n" for n in range(5000)))
    data = {"source": "csv", "path": str(tmp_path / "wide.csv"), "target": "kind"}
    data["duplicates"] = "keep"
    history = place.session({"data": data, "model": MLP})
    async with place.ground.wire.hear(subjects.telemetry(history.id, "preparing")) as heard:
        (said,) = await place.react(DataManager(place.ground), "prepare", history, history.facts[0])
        assert isinstance(said, DatasetPrepared)
        _, body = await anext(heard)
    told = orjson.loads(body)
    assert 0 < told["done"] < told["total"] == (tmp_path / "wide.csv").stat().st_size


@IN_CHILDREN
async def test_a_workload_that_nobody_added_or_that_changed_is_rejected(tmp_path: Path, children: Children) -> None:
    place = Place(tmp_path, children)
    data = {"source": "workload", "workload": "mine"}
    (unknown,) = await answered(place, {"data": data, "model": MLP})
    assert isinstance(unknown, DatasetRejected)
    assert "no workload 'mine'" in unknown.problems[0]["message"]
    mine = tmp_path / "mine.py"
    mine.write_text((Path(__file__).parents[2] / "examples" / "workload" / "mine.py").read_text())
    Workloads(place.ground.home.root)._write({"mine": inspect_file(str(mine))})
    mine.write_text("# changed")
    (changed,) = await answered(place, {"data": data, "model": MLP})
    assert "has changed" in changed.problems[0]["message"]


@IN_CHILDREN
async def test_what_the_data_of_a_workload_raises_is_shown_as_its_last_line(tmp_path: Path, children: Children) -> None:
    mine = tmp_path / "mine.py"
    text = (Path(__file__).parents[2] / "examples" / "workload" / "mine.py").read_text()
    mine.write_text(text.replace("y = np.arange(o.rows) % 2", "y = 1 // 0  # mistaken"))
    place = Place(tmp_path, children)
    Workloads(place.ground.home.root)._write({"mine": inspect_file(str(mine))})
    (said,) = await answered(place, {"data": {"source": "workload", "workload": "mine"}, "model": MLP})
    assert isinstance(said, DatasetRejected)
    (problem,) = said.problems
    assert "ZeroDivisionError" in problem["message"]
    assert "y = 1 // 0  # mistaken" in problem["message"]
    assert problem["path"].startswith(str(mine))


@IN_CHILDREN
@pytest.mark.parametrize("y", ["np.empty(1 << 50)", "[np.empty(1 << 30, np.uint8) for _ in range(4096)][0]"])
async def test_data_of_a_workload_for_which_there_is_no_memory_are_rejected_at_their_line(
    tmp_path: Path, children: Children, y: str
) -> None:
    mine = tmp_path / "mine.py"
    text = (Path(__file__).parents[2] / "examples" / "workload" / "mine.py").read_text()
    mine.write_text(text.replace("y = np.arange(o.rows) % 2", f"y = {y}"))
    place = Place(tmp_path, children)
    Workloads(place.ground.home.root)._write({"mine": inspect_file(str(mine))})
    (said,) = await answered(place, {"data": {"source": "workload", "workload": "mine"}, "model": MLP})
    assert isinstance(said, DatasetRejected)
    (problem,) = said.problems
    assert "not enough memory" in problem["message"]
    assert problem["path"].startswith(f"{mine}:")
    assert problem["cure"]


@IN_CHILDREN
async def test_a_child_that_dies_is_no_verdict_about_the_data(tmp_path: Path, children: Children) -> None:
    mine = tmp_path / "mine.py"
    text = (Path(__file__).parents[2] / "examples" / "workload" / "mine.py").read_text()
    mine.write_text(text.replace("y = np.arange(o.rows) % 2", "import os; os.kill(os.getpid(), 9)"))
    place = Place(tmp_path, children)
    Workloads(place.ground.home.root)._write({"mine": inspect_file(str(mine))})
    with pytest.raises(ChildDied):
        await answered(place, {"data": {"source": "workload", "workload": "mine"}, "model": MLP})
