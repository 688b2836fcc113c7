"""Generated sets: the same arguments are the same rows anywhere, and there is something in them to learn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from agents.data_manager.sources.builtin_sets import held_by
from contracts.request.data import Blobs
from tests.agents.preparing import Bench


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_images_have_the_size_that_was_asked_for_and_a_pattern_per_class(bench: Bench) -> None:
    sized = {"rows": 200, "height": 12, "width": 20, "channels": 3, "classes": 4}
    dataset = bench.dataset(bench.prepared({"source": "images", "noise": 0.1, **sized}))
    train = dataset.columns("train")
    assert train["x"].shape == (160, 3, 12, 20)
    assert (dataset.facts.outputs, dataset.facts.counts) == (4, (40, 40, 40, 40))
    x, y = train["x"].reshape(160, -1), np.asarray(train["y"])
    within = [np.var(x[y == label], axis=0).mean() for label in range(4)]
    assert np.mean(within) < 0.8 * np.var(x, axis=0).mean()


def test_tokens_follow_from_those_before_them_but_for_the_noise(bench: Bench) -> None:
    asked = {"source": "tokens", "rows": 400, "length": 24, "vocabulary": 50}
    dataset = bench.dataset(bench.prepared({**asked, "noise": 0.0}))
    x = np.asarray(dataset.columns("train")["x"])
    assert x.shape == (320, 24)
    assert dataset.facts.task == "sequences"
    assert dataset.facts.outputs <= 50
    assert set(dataset.columns("train")) == {"x"}
    for back in (1, 2):
        pairs = zip(x[:, 2 - back : -back].ravel().tolist(), x[:, 2:].ravel().tolist(), strict=True)
        likely = dict.fromkeys(range(50), 0)
        counts: dict[tuple[int, int], int] = {}
        for pair in pairs:
            counts[pair] = counts.get(pair, 0) + 1
        for (first, _), count in counts.items():
            likely[first] = max(likely[first], count)
        assert sum(likely.values()) > 0.45 * x[:, 2:].size
    noisy = np.asarray(bench.dataset(bench.prepared({**asked, "noise": 1.0})).columns("train")["x"])
    assert np.bincount(noisy.ravel(), minlength=50).min() > 0.5 * noisy.size / 50


@pytest.mark.parametrize("source", ["images", "tokens"])
def test_the_same_arguments_are_the_same_rows_in_any_home(tmp_path: Path, source: str) -> None:
    first = Bench(tmp_path / "one").prepared({"source": source, "rows": 100, "seed": 7})
    again = Bench(tmp_path / "other").prepared({"source": source, "rows": 100, "seed": 7})
    changed = Bench(tmp_path / "other").prepared({"source": source, "rows": 100, "seed": 8})
    assert first.root == again.root != changed.root
    rows = Bench(tmp_path / "one").dataset(first).manifest.splits["train"]["x"]
    assert [one[:16] for one in rows.pieces] == {"images": ["7e34d76cfa8e99d9"], "tokens": ["928d069585de34ee"]}[source]


def test_the_centers_of_many_classes_count_also_where_rows_are_few() -> None:
    few = Blobs(source="blobs", rows=30, features=100_000, classes=10_000)
    assert held_by(few) > 8 * 10_000 * 100_000


@pytest.mark.parametrize(
    "asked",
    [
        {"source": "blobs", "rows": 100_000_000, "features": 100_000},
        {"source": "images", "rows": 100_000_000, "height": 4096, "width": 4096, "channels": 64},
        {"source": "tokens", "rows": 100_000_000, "length": 65_536},
    ],
)
def test_more_rows_than_there_is_room_for_are_refused_before_the_first(bench: Bench, asked: dict[str, int]) -> None:
    (problem,) = bench.rejected(asked)
    assert problem["path"] == "data.rows"
    assert "GiB are free" in problem["message"]
    assert not [left for left in bench.store.rglob("*") if left.is_file()]
