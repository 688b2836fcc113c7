"""Rows from people become the columns of training, or are refused by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from contracts.errors import InvalidInput
from runtime.engine.facts import Column, Facts
from runtime.engine.ragged import Ragged
from runtime.engine.workload import Batch, Workload
from runtime.model.rows import DELIMITERS, columns_of, parse, text_of
from runtime.model.trained import BATCH, TrainedModel

TABLE = Facts(
    "regression", {"train": 3}, {"x": Column("<f4", (3,)), "y": Column("<f4", ())}, features=("age", "hue=red", "size")
)
IMAGES = Facts("classification", {"train": 3}, {"x": Column("|u1", (1, 2, 2)), "y": Column("<i8", ())}, outputs=2)
ANY = Facts(
    "other", {"train": 3}, {"ids": Column("<i8", (-1,)), "points": Column("<f4", (-1, 2)), "text": Column("|u1", (-1,))}
)
OWN = Facts("other", {"train": 3}, {"a": Column("<f4", (2,)), "b": Column("<i8", ())})


@pytest.mark.parametrize(
    "given",
    [
        [[1, 1, 2.5]],
        [{"age": 1, "hue": "red", "size": "2.5", "price": 9}],
        [{"age": "1", "hue=red": 1, "size": 2.5}],
        {"age": 1, "hue": " red ", "size": 2.5},
        {"x": [[1, 1, 2.5]]},
        np.array([[1, 1, 2.5]]),
        parse("age,hue,size,extra\n1,red,2.5,x\n", "csv"),
        parse("1,1,2.5\n", ""),
        parse("[[1, 1, 2.5]]", ""),
        parse('{"age": 1, "hue": "red", "size": 2.5}\n', "jsonl"),
    ],
)
def test_rows_may_be_lists_objects_columns_or_text(given: Any) -> None:
    columns = columns_of(given, TABLE, ("x",))
    assert columns["x"].dtype == np.dtype("<f4")
    assert columns["x"].tolist() == [[1.0, 1.0, 2.5]]


def test_json_lines_are_one_row_each() -> None:
    rows = parse('{"age": 1, "hue": "red", "size": 2}\n{"age": 2, "hue=red": 0, "size": 3}\n', "")
    assert columns_of(rows, TABLE, ("x",))["x"].tolist() == [[1, 1, 2], [2, 0, 3]]


@pytest.mark.parametrize("given", [[[[[0, 1], [2, 3]]]], [[0, 1, 2, 3]], {"x": [[[0, 1], [2, 3]]]}])
def test_images_may_be_nested_or_flat(given: Any) -> None:
    found = columns_of(given, IMAGES, ("x",))["x"]
    assert (found.shape, found.dtype) == ((1, 1, 2, 2), np.dtype("u1"))


def test_a_model_of_several_columns_takes_them_by_name() -> None:
    by_row = columns_of([{"a": [1, 2], "b": 3}, {"a": [4, 5], "b": 6}], OWN, ("a", "b"))
    by_column = columns_of({"a": [[1, 2], [4, 5]], "b": [3, 6]}, OWN, ("a", "b"))
    assert {name: one.tolist() for name, one in by_row.items()} == {"a": [[1, 2], [4, 5]], "b": [3, 6]}
    assert all((by_row[name] == by_column[name]).all() for name in by_row)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ([], "no rows"),
        ([[1, 2]], "row 1: x has 2 values, the model takes 3"),
        ([[1, 2, 3], [1, 2, "many"]], "row 2: x is not all numbers"),
        ([[1, 2, float("nan")]], "not finite"),
        ([{"age": 1, "size": 2}], "row 1 has no 'hue'"),
        ([{"age": 1, "hue": "red", "size": "big"}], "row 1: size is 'big'"),
        ([{"colour": 1}], "row 1 has no 'age'"),
        ([{"age": 1, "hue": " ", "size": 2}], "row 1 has no value in 'hue'"),
        ([{"age": None, "hue": "red", "size": 2}], "row 1 has no value in 'age'"),
        ([{"age": 1, "hue": "red", "size": "?"}] * 12, r"row 1: size is .*row 10: size is '\?'; and 2 more rows"),
    ],
)
def test_what_does_not_fit_is_named(given: Any, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        columns_of(given, TABLE, ("x",))


@pytest.mark.parametrize("given", [[[1, "red", 2]], [[1, 2]]])
def test_who_gives_lists_to_a_table_with_words_is_told_its_columns(given: Any) -> None:
    with pytest.raises(InvalidInput) as refused:
        columns_of(given, TABLE, ("x",))
    assert refused.value.cure.endswith(", or objects with age, hue, size.")


def test_columns_of_different_lengths_are_refused() -> None:
    with pytest.raises(InvalidInput, match="different lengths"):
        columns_of({"a": [[1, 2]], "b": [1, 2]}, OWN, ("a", "b"))


def test_rows_of_any_length_and_texts_are_taken_as_they_are() -> None:
    given = [{"ids": [3, 1], "points": [[1, 2]], "text": "é"}, {"ids": [], "points": [], "text": [7]}]
    found = columns_of(given, ANY, tuple(ANY.columns))
    assert all(isinstance(one, Ragged) for one in found.values())
    rows = {name: [one.row(at).tolist() for at in range(2)] for name, one in found.items() if isinstance(one, Ragged)}
    assert rows == {"ids": [[3, 1], []], "points": [[[1.0, 2.0]], []], "text": [[0xC3, 0xA9], [7]]}


@pytest.mark.parametrize(
    ("name", "row", "says"),
    [
        ("ids", 5, r"row 2: ids has the shape \[\], the model takes any number of values"),
        ("points", [1, 2], r"row 2: points has the shape \[2\], .* values of the shape \[2\]"),
        ("points", [[1, float("inf")]], "row 2: points holds a value that is not finite"),
        ("ids", "many", "row 2: ids is not all numbers"),
        ("text", [300], "row 2: text is not all numbers that fit"),
    ],
)
def test_a_row_of_any_length_that_does_not_fit_is_named(name: str, row: Any, says: str) -> None:
    good = {"ids": [1], "points": [[0, 0]], "text": "a"}
    with pytest.raises(InvalidInput, match=says):
        columns_of([good, {**good, name: row}], ANY, tuple(ANY.columns))


class Sums(Workload):
    """Answers the sum of each row."""

    def build(self, o: Any, facts: Facts) -> nn.Module:
        return nn.Identity()

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        return self.predict(model, batch).sum()

    def predict(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        ends = batch["ids"].cumsum(0).new_zeros(len(batch["ids"]) + 1)
        ends[1:] = batch["ids"].cumsum(0)
        return ends[batch["ids.offsets"]].diff()


def test_a_model_answers_rows_of_any_length_batch_by_batch() -> None:
    facts = Facts("other", {"train": 3}, {"ids": Column("<i8", (-1,))})
    model = TrainedModel(nn.Identity(), Sums(), facts, 1, "")
    rows = [list(range(at % 9)) for at in range(BATCH + 44)]
    found = model.predictions(columns_of({"ids": rows}, facts, model.inputs))
    assert [one["answer"] for one in found] == [float(sum(row)) for row in rows]


@pytest.mark.parametrize(("text", "form"), [("[1,", "json"), ('{"a": 1}\nnonsense', "jsonl"), ("a,b\n1,2,3", "csv")])
def test_broken_text_is_refused(text: str, form: str) -> None:
    with pytest.raises(InvalidInput):
        parse(text, form)


def test_a_category_that_training_has_never_seen_is_told_with_those_that_it_has() -> None:
    towns = Facts(
        "regression", {"train": 3}, {"x": Column("<f4", (3,))}, features=("town=1", "town=Paris", "town=Rome")
    )
    with pytest.raises(InvalidInput, match="row 2: town is 'Pariss', which training has never seen") as refused:
        columns_of([{"town": "Rome"}, {"town": "Pariss"}], towns, ("x",))
    assert refused.value.cure == "It has seen 'Paris', '1', 'Rome'."
    seen = columns_of([{"town": 1}, {"town": "01"}, {"town": " Paris"}], towns, ("x",))["x"]
    assert np.asarray(seen).tolist() == [[1, 0, 0], [1, 0, 0], [0, 1, 0]]
    by_hand = columns_of([{"town=1": 0, "town=Paris": 0, "town=Rome": 0}], towns, ("x",))["x"]
    assert np.asarray(by_hand).tolist() == [[0, 0, 0]]


def test_of_many_categories_some_are_named() -> None:
    many = Facts("regression", {"train": 3}, {"x": Column("<f4", (99,))}, features=tuple(f"n=w{n}" for n in range(99)))
    with pytest.raises(InvalidInput) as refused:
        columns_of([{"n": "w999"}], many, ("x",))
    assert refused.value.cure.endswith("and 89 more.")


@pytest.mark.parametrize("mark", list(DELIMITERS))
def test_cells_are_separated_in_questions_by_all_that_separates_them_in_training(mark: str) -> None:
    text = mark.join(("age", "hue", "size")) + "\n" + mark.join(("1", "red", "2.5")) + "\n"
    assert columns_of(parse(text, "csv"), TABLE, ("x",))["x"].tolist() == [[1.0, 1.0, 2.5]]
    assert columns_of(parse("\n" + mark.join("123"), ""), TABLE, ("x",))["x"].tolist() == [[1.0, 2.0, 3.0]]


@pytest.mark.parametrize(
    ("content", "says", "cure"),
    [
        ("town,size\nMálaga,1\n".encode("latin-1"), "line 2 of rows.csv is not UTF-8: byte 0xe1", "UTF-8"),
        ("town\n".encode("utf-16"), "rows.csv is UTF-16", "UTF-8"),
        (b"PK\x03\x04\x14\x00\x06\x00", "rows.csv is neither CSV nor JSON: it holds a zero byte at 5", "CSV, JSON"),
    ],
)
def test_a_file_that_is_no_utf_8_text_is_told_with_the_cure(content: bytes, says: str, cure: str) -> None:
    with pytest.raises(InvalidInput, match=says) as refused:
        text_of(content, "rows.csv")
    assert cure in refused.value.cure
    assert text_of("\ufeffa\n".encode(), "rows.csv") == "a\n"


class Judging(Workload):
    """Learns from four columns and answers from two of them."""

    def build(self, o: Any, facts: Facts) -> nn.Module:
        return nn.Linear(2, 1)

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        return (batch["weight"] * (self.predict(model, batch) - batch["target"])).mean()

    def predict(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        answers: torch.Tensor = model(batch["num"]).squeeze(1) + batch.get("ids.offsets", torch.zeros(3)).diff()
        return answers


class Whole(Judging):
    def predict(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        return Judging.predict(self, model, dict(batch))


class Refusing(Judging):
    def predict(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        if not batch["num"].any():
            raise ValueError("nothing but zeros")
        return Judging.predict(self, model, batch)


@pytest.mark.parametrize(
    ("workload", "inputs"),
    [
        (Judging(), ("num", "ids")),
        (Whole(), ("num", "ids", "target", "weight")),
        (Refusing(), ("num", "ids", "target", "weight")),
    ],
)
def test_a_workload_is_asked_with_the_columns_that_its_predict_reads(
    workload: Workload, inputs: tuple[str, ...]
) -> None:
    columns = {"num": Column("<f4", (2,)), "ids": Column("<i8", (-1,))}
    columns |= {name: Column("<f4", ()) for name in ("target", "weight", "y")}
    facts = Facts("other", {"train": 3}, columns)
    model = TrainedModel(workload.build(None, facts), workload, facts, 1, "")
    assert model.inputs == inputs
    row: dict[str, Any] = {"num": [1, 2], "ids": [7, 8, 9], "target": 0, "weight": 0}
    rows = columns_of([{name: row[name] for name in inputs}], facts, model.inputs)
    (answer,) = model.predictions(rows)
    assert answer["answer"] == pytest.approx(float(model.model(torch.tensor([1.0, 2.0])).detach()) + 3)


@pytest.mark.parametrize(
    "given",
    [
        [{"x": 1.5, "z": 2.0}, {"x": -1, "z": "4"}],
        {"x": [1.5, -1.0], "z": [2.0, 4.0]},
        [{"x": [1.5, 2.0]}, {"x": [-1.0, 4.0]}],
        {"x": [[1.5, 2.0], [-1.0, 4.0]]},
        [[1.5, 2.0], [-1.0, 4.0]],
    ],
)
def test_a_tables_own_column_called_x_is_a_feature_like_the_others(given: Any) -> None:
    facts = Facts("regression", {"train": 3}, {"x": Column("<f4", (2,))}, features=("x", "z"))
    assert columns_of(given, facts, ("x",))["x"].tolist() == [[1.5, 2.0], [-1.0, 4.0]]
    worded = Facts("regression", {"train": 3}, {"x": Column("<f4", (3,))}, features=("x=no", "x=yes", "z"))
    assert columns_of([{"x": "yes", "z": 7}], worded, ("x",))["x"].tolist() == [[0.0, 1.0, 7.0]]
    alone = Facts("regression", {"train": 3}, {"x": Column("<f4", (1,))}, features=("x",))
    for one in ([{"x": [2]}, {"x": [3.0]}], {"x": [2, 3]}, [{"x": 2}, {"x": 3}]):
        assert columns_of(one, alone, ("x",))["x"].tolist() == [[2.0], [3.0]]
