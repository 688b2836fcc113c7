"""Rows of any length and rows of bytes, as a workload gives them, become a dataset like others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import BaseModel

from runtime.engine import workload as engine
from runtime.engine.ragged import Ragged
from tests.agents.preparing import Bench, finding

DATA = {"source": "workload", "workload": "words"}
WORDS = [b"w" * (at % 5) + bytes([at]) for at in range(50)]
POINTS = [np.full((at % 4, 2), at, np.float64) for at in range(50)]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def gives(make: Callable[[], Any]) -> None:
    class Words(engine.Workload):
        class Options(BaseModel):
            """None."""

        def build(self, o: Any, facts: Any) -> Any:
            raise NotImplementedError

        def loss(self, model: Any, batch: Any) -> Any:
            raise NotImplementedError

        def data(self, o: Any) -> Any:
            return make()

    engine.register("words", Words)


def test_each_row_goes_where_its_other_columns_go(bench: Bench) -> None:
    gives(lambda: {"word": WORDS, "points": POINTS, "number": np.arange(50), "y": np.arange(50) % 2})
    dataset = bench.dataset(bench.prepared(DATA))
    assert dataset.facts.columns["points"].shape == (-1, 2)
    assert (dataset.facts.columns["points"].dtype, dataset.facts.columns["word"].dtype) == ("<f4", "|u1")
    seen = set()
    for split in ("train", "val", "test"):
        ragged = dataset.ragged(split)
        for at, number in enumerate(dataset.columns(split)["number"].tolist()):
            assert ragged["word"].row(at).tobytes() == WORDS[number]
            assert ragged["points"].row(at).tolist() == POINTS[number].tolist()
            seen.add(number)
    assert seen == set(range(50))


def test_only_ragged_columns_are_a_dataset_of_another_kind(bench: Bench) -> None:
    gives(lambda: {"word": WORDS})
    dataset = bench.dataset(bench.prepared(DATA))
    assert dataset.facts.task == "other"
    assert dataset.facts.rows == {"train": 40, "val": 5, "test": 5}


def test_splits_of_the_workloads_own_may_be_ragged(bench: Bench) -> None:
    parts = {"train": slice(0, 30), "val": slice(30, 50)}
    gives(lambda: {name: {"word": WORDS[at], "y": np.arange(50)[at] % 2} for name, at in parts.items()})
    dataset = bench.dataset(bench.prepared(DATA))
    assert dataset.facts.rows == {"train": 30, "val": 20}
    assert dataset.ragged("val")["word"].row(3).tobytes() == WORDS[33]


def test_a_row_with_a_number_that_is_not_finite_is_set_aside(bench: Bench) -> None:
    broken = [one.copy() for one in POINTS]
    broken[7][0, 1] = np.nan
    gives(lambda: {"points": broken, "number": np.arange(50)})
    said = bench.prepared(DATA)
    assert said.rows == 49
    assert finding(said, "non-finite").count == 1
    dataset = bench.dataset(said)
    assert 7 not in np.concatenate([dataset.columns(split)["number"] for split in ("train", "val", "test")])


def test_the_same_rows_have_the_same_root_in_whatever_form_they_come(bench: Bench) -> None:
    roots = set()
    for given in (WORDS, Ragged.of(WORDS)):
        gives(lambda given=given: {"word": given, "y": np.arange(50) % 2})
        roots.add(bench.prepared(DATA).root)
    assert len(roots) == 1
    gives(lambda: {"word": [*WORDS[:-1], b"other"], "y": np.arange(50) % 2})
    assert bench.prepared(DATA).root not in roots


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"word": WORDS[:9], "y": np.arange(10)}, "differ in length"),
        ({"word": [b"a", "b"] * 10}, "'word'"),
        ({"points": [np.zeros(2), np.zeros((3, 2))] * 10}, "differ"),
        ({"names": ["a", "b"] * 10}, "'names'"),
    ],
)
def test_what_cannot_be_rows_is_named(bench: Bench, columns: dict[str, Any], said: str) -> None:
    gives(lambda: columns)
    (problem,) = bench.rejected(DATA)
    assert said in problem["message"]
    assert problem["cure"]
