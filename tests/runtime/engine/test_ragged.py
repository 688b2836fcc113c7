"""Columns whose rows have any length, and bytes, train like others: the same bits after any resume."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from contracts.errors import InvalidInput, InvalidRequest, NotVerified
from runtime.engine import workload
from runtime.engine.batches import Feed
from runtime.engine.dataset import Dataset, write
from runtime.engine.facts import Facts, describe
from runtime.engine.loop import Run
from runtime.engine.ragged import Ragged, apart, together
from runtime.engine.random_keys import uniform
from runtime.engine.workload import Workload
from tests.runtime.engine.plans import ROWS, finished, planned

rows_of_floats = st.lists(st.lists(st.integers(-9, 9), max_size=5), min_size=1, max_size=12)


def column(rows, dtype=np.float32):
    return Ragged.of([np.asarray(row, dtype) for row in rows])


@given(rows_of_floats)
def test_rows_come_back_as_they_were(rows):
    ragged = column(rows)
    assert len(ragged) == len(rows)
    assert [ragged.row(at).tolist() for at in range(len(rows))] == rows


@given(rows_of_floats, st.data())
def test_some_rows_are_chosen_in_their_order(rows, data):
    chosen = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=8))
    found = column(rows).chosen(np.asarray(chosen, np.int64))
    assert [found.row(at).tolist() for at in range(len(chosen))] == [rows[at] for at in chosen]


def test_bytes_are_rows_too():
    ragged = Ragged.of([b"abc", b"", b"\x00\xff"])
    assert [ragged.row(at).tobytes() for at in range(3)] == [b"abc", b"", b"\x00\xff"]


@pytest.mark.parametrize(
    "rows",
    [[], [np.zeros(2), np.zeros((2, 3))], [np.zeros(2, np.float32), np.zeros(2)], ["text"], [np.array([{}])], [3.0]],
)
def test_what_does_not_go_together_is_refused(rows):
    with pytest.raises(InvalidInput):
        Ragged.of(rows)


@pytest.mark.parametrize("offsets", [[0, 2], [1, 3], [0, 4, 3], [[0, 3]], [0.0, 3.0], []])
def test_offsets_that_do_not_lead_through_the_values_are_refused(offsets):
    with pytest.raises(InvalidInput):
        Ragged(np.zeros(3), np.asarray(offsets))


def test_rows_with_a_number_that_is_not_finite_are_known():
    ragged = column([[1, 2], [], [np.nan], [3, np.inf, 1], [4]])
    assert ragged.sound().tolist() == [True, True, False, False, True]
    assert Ragged.of([b"a", b""]).sound().all()


def test_plain_columns_and_ragged_ones_are_told_apart_again():
    fixed, ragged = together(apart({"y": np.arange(3), "text": Ragged.of([b"a", b"bc", b""])}))
    assert list(fixed) == ["y"]
    assert ragged["text"].row(1).tobytes() == b"bc"
    with pytest.raises(InvalidInput, match="ours"):
        together({"lonely.offsets": np.zeros(1, np.int64)})


def split_of(rows, key):
    """Words of letters; the class is how often the first one stands in them."""
    lengths = (uniform(key, rows) * 6).astype(int) + 1
    letters = (uniform(key + 1, int(lengths.sum())) * 4).astype(np.uint8)
    words = np.split(letters, np.cumsum(lengths)[:-1])
    y = np.array([min(3, int((word == 0).sum())) for word in words], np.int64)
    points = [np.stack([word, word[::-1]], axis=1).astype(np.float32) for word in words]
    return {"word": [word.tobytes() for word in words], "points": points, "y": y}


def columns(rows, key):
    made = split_of(rows, key)
    return {**made, "word": Ragged.of(made["word"]), "points": Ragged.of(made["points"])}


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    splits = {name: columns(rows, 10 * at) for at, (name, rows) in enumerate(ROWS.items(), 1)}
    directory = tmp_path_factory.mktemp("words")
    write(directory, splits, describe(splits, "classification"))
    return Dataset.open(directory)


def test_a_dataset_holds_them_and_says_so(words):
    made = split_of(150, 10)
    assert words.facts.rows == ROWS
    assert words.facts.columns["points"].shape == (-1, 2)
    assert words.facts.columns["word"].dtype == "|u1"
    assert Facts.from_json(words.facts.as_json()) == words.facts
    assert set(words.columns("train")) == {"y"}
    ragged = words.ragged("train")
    assert [ragged["word"].row(at).tobytes() for at in range(150)] == made["word"]
    assert ragged["points"].row(7).tolist() == made["points"][7].tolist()


def test_a_flipped_offset_is_noticed(words, tmp_path):
    for path in words.directory.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    damaged = tmp_path / "val.word.offsets.bin"
    raw = bytearray(damaged.read_bytes())
    raw[8] ^= 1
    damaged.write_bytes(raw)
    with pytest.raises(NotVerified, match=r"val\.word\.offsets"):
        Dataset.open(tmp_path)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 149), min_size=1, max_size=20))
def test_a_batch_has_all_values_of_its_rows_and_where_each_begins(words, rows):
    feed = Feed(words, "train", "cpu")
    (batch,) = (feed.batch(one) for one in feed.batches(np.asarray(rows), len(rows), 0))
    wanted = words.ragged("train")["points"].chosen(np.asarray(rows))
    assert torch.equal(batch["points"], torch.from_numpy(wanted.values))
    assert torch.equal(batch["points.offsets"], torch.from_numpy(wanted.offsets))
    assert len(batch["y"]) == len(rows)


class Words(Workload):
    """Sums a vector per letter over each word."""

    def build(self, o, facts):
        return nn.ModuleDict({"letters": nn.Embedding(4, 8), "points": nn.Linear(2, 8), "last": nn.Linear(8, 4)})

    def predict(self, model, batch):
        lengths = batch["word.offsets"].diff()
        owner = torch.repeat_interleave(torch.arange(len(lengths)), lengths)
        each = model["letters"](batch["word"].long()) + model["points"](batch["points"])
        return model["last"](torch.zeros(len(lengths), 8).index_add(0, owner, each))

    def loss(self, model, batch):
        return {"loss": nn.functional.cross_entropy(self.predict(model, batch), batch["y"])}

    def augment(self, sample, draw):
        kept = 1 + draw.below(len(sample["word"]))
        return {**sample, "word": sample["word"][:kept], "points": sample["points"][:kept] + draw.uniform()}

    def metrics(self):
        return {"right": lambda answers, batch: float((answers.argmax(1) == batch["y"]).double().mean())}


def test_words_are_learned_and_resume_to_the_same_bits(words):
    workload.register("words", Words)
    plan = planned(
        words,
        model={"architecture": "workload", "workload": "words"},
        optimizer={"type": "adamw", "learning_rate": 0.02},
        early_stopping={"enabled": False},
    )
    run = Run.start(plan, words)
    run.advance()
    kept = run.tensors()
    last = finished(run)[-1]
    assert last.evaluation.values["val_right"] > 0.6
    resumed = Run.resume(plan, words, kept, 10)
    assert finished(resumed)[-1] == last
    assert resumed.weights_digest() == run.weights_digest()


def test_built_in_models_say_that_they_need_rows_of_one_shape(tmp_path):
    splits = {}
    for at, (name, rows) in enumerate(ROWS.items(), 1):
        made = columns(rows, 10 * at)
        splits[name] = {"x": made["points"], "y": made["y"]}
    write(tmp_path, splits, describe(splits, "classification"))
    with pytest.raises(InvalidRequest, match="any length"):
        planned(Dataset.open(tmp_path))
