"""Samplers are bijections without memory: any cut is the same rows, and every row is found where it stands."""

from __future__ import annotations

import sys
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from contracts.errors import InvalidRequest
from contracts.request.sampler import Sampler
from runtime.engine import sampling, workload
from runtime.engine.loop import Run
from runtime.engine.random_keys import uniform
from runtime.engine.sampling import TrainingRows, sampler_of
from runtime.engine.workload import Workload
from tests.runtime.engine.plans import finished, planned

KINDS = ["uniform", "weighted", "balanced", "grouped"]


def sampler(values, seed=1, **raw):
    values = np.asarray(values)
    chosen = TypeAdapter(Sampler).validate_python(raw)
    return sampling.samplers.of(chosen)(chosen, seed, TrainingRows(len(values), {"y": values}))


columns = st.lists(st.integers(0, 5), min_size=1, max_size=60).filter(lambda values: sum(values) > 0)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(KINDS), columns, st.integers(0, 10**6), st.integers(0, 400), st.integers(1, 300), st.data())
def test_any_cut_is_the_same_rows_and_turns(kind, values, seed, first, count, data):
    one, middle = sampler(values, seed, type=kind), data.draw(st.integers(0, count))
    rows, turns = one.take(first, count), one.turns(first, count)
    assert rows.dtype == np.int64
    assert len(rows) == len(turns) == count
    fresh = sampler(values, seed, type=kind)
    for whole, cut in ((rows, fresh.take), (turns, fresh.turns)):
        parts = [cut(at, size) for at, size in ((first + middle, count - middle), (first, middle)) if size]
        assert np.concatenate(parts[::-1]).tolist() == whole.tolist()


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(KINDS), columns, st.integers(0, 10**6))
def test_every_row_is_found_where_it_stands(kind, values, seed):
    one = sampler(values, seed, type=kind)
    rows, turns = one.take(0, 150).tolist(), one.turns(0, 150).tolist()
    assert [one.where(row, turn) for row, turn in zip(rows, turns, strict=True)] == list(range(150))
    assert len({*zip(rows, turns, strict=True)}) == 150
    if kind != "weighted":  # whose rows come in any order of their places
        assert all(turn == rows[:at].count(row) for at, (row, turn) in enumerate(zip(rows, turns, strict=True)))


@settings(max_examples=80, deadline=None)
@given(st.sampled_from(KINDS), columns, st.integers(0, 10**6), st.integers(0, 300), st.integers(0, 300))
@example("grouped", [0, 0, 0, 0, 1, 1, 1, 1], 1, 0, 80)
def test_all_comings_of_a_row_are_found_without_looking_at_other_positions(kind, values, seed, first, count):
    one = sampler(values, seed, type=kind)
    rows = one.take(0, first + count + 1)[first : first + count]
    for row in {0, len(values) - 1, len(values) // 2}:
        assert one.comings(row, first, first + count).tolist() == (first + np.flatnonzero(rows == row)).tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_the_comings_of_a_row_in_a_million_steps_are_found_in_pieces(kind):
    """More epochs than are looked at together, and more groups than fit into one piece."""
    one, positions = sampler(np.arange(1000) % 7, 3, type=kind), 64 * 1_000_000
    found = one.comings(501, 0, positions)
    expected = {"uniform": 64_000, "balanced": 63_936, "weighted": 85_419, "grouped": 64_000}
    assert abs(len(found) - expected[kind]) <= 8
    some = found[:: len(found) // 50]
    assert {int(one.take(int(at), 1)[0]) for at in some} == {501}


def test_a_row_comes_as_often_as_its_value_or_its_values_repeats_say():
    values = [0, 1, 2, 3, 1]
    assert Counter(sampler(values, type="weighted").take(0, 14).tolist()) == {1: 2, 2: 4, 3: 6, 4: 2}
    given_repeats = sampler(values, type="weighted", repeats=[3, 1, 0, 2])
    assert Counter(given_repeats.take(0, 14).tolist()) == {0: 6, 1: 2, 3: 4, 4: 2}
    with pytest.raises(ValueError, match="never comes"):
        given_repeats.where(2, 0)


def test_classes_come_equally_often_and_rare_rows_come_again_sooner():
    values = [0] * 50 + [1] * 10 + [2] * 5
    one = sampler(values, type="balanced")
    rows = one.take(0, 150)
    assert Counter(np.asarray(values)[rows].tolist()) == {0: 50, 1: 50, 2: 50}
    for round_ in rows.reshape(-1, 3):
        assert sorted(np.asarray(values)[round_].tolist()) == [0, 1, 2]
    counts = Counter(rows.tolist())
    assert {counts[row] for row in range(50)} == {1}
    assert {counts[row] for row in range(60, 65)} == {10}
    assert len({tuple(np.asarray(values)[round_].tolist()) for round_ in rows.reshape(-1, 3)}) == 6


def test_rows_of_a_group_come_one_after_another_in_other_orders_each_epoch():
    values = [3, 1, 3, 2, 1, 3, 1, 1]
    one = sampler(values, type="grouped")
    orders = set()
    for epoch in range(12):
        rows = one.take(epoch * 8, 8)
        assert sorted(rows.tolist()) == list(range(8))
        groups = np.asarray(values)[rows]
        assert np.count_nonzero(np.diff(groups)) == 2
        orders.add(tuple(rows.tolist()))
    assert len(orders) > 8


def calls_for(kind, groups):
    """How many calls a cut through so many groups of four rows takes: what it costs, whatever else the machine does."""
    one, counted = sampler(np.repeat(np.arange(groups), 4), type=kind), Counter()
    sys.setprofile(lambda frame, event, argument: counted.update([event]))
    try:
        rows = one.take(1_000, 800)
    finally:
        sys.setprofile(None)
    assert len(set(rows.tolist())) == 800
    return counted["call"] + counted["c_call"]


@pytest.mark.parametrize("kind", ["grouped", "balanced"])
def test_twice_as_many_small_groups_or_classes_cost_at_most_about_twice_as_much(kind):
    assert 0 < calls_for(kind, 2000) < 2.5 * calls_for(kind, 1000)


@pytest.mark.parametrize(
    "raw", [{"type": "weighted", "repeats": [1, 2, 0, 3]}, {"type": "balanced"}, {"type": "grouped"}]
)
def test_a_sampled_training_resumes_to_the_same_bits_and_rows_are_traced(images, raw):
    plan = planned(images, sampler=raw, early_stopping={"enabled": False})
    run = Run.start(plan, images)
    first = run.advance().window
    kept = run.tensors()
    rest = finished(run)
    resumed = Run.resume(plan, images, kept, 10)
    assert [one.window for one in finished(resumed)] == [one.window for one in rest]
    plain = Run.start(planned(images), images)
    assert plain.advance().window.index_digest != first.index_digest
    order = sampler_of(plan.request, images)
    assert order.where(int(order.take(77, 1)[0]), int(order.turns(77, 1)[0])) == 77


class Jittered(Workload):
    """Draws for each row from what it is handed, and tells what it drew."""

    def build(self, o, facts):
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 4))

    def loss(self, model, batch):
        loss = torch.nn.functional.cross_entropy(model(batch["x"]), batch["y"])
        return {"loss": loss, "jitter": batch["jitter"].mean()}

    def augment(self, sample, draw):
        return {**sample, "jitter": np.float32(draw.uniform())}


def test_a_row_that_comes_again_within_an_epoch_draws_anew(images):
    workload.register("jittered", Jittered)
    model = {"architecture": "workload", "workload": "jittered"}
    only = {"type": "weighted", "repeats": [40, 0, 0, 0]}
    run = Run.start(planned(images, model=model, sampler=only, training={"epochs": 2, "batch_size": 1}), images)
    drawn = np.frombuffer(run.advance().window.scalars["jitter"], "<f4")
    assert len(set(drawn.tolist())) == 10


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        ({"type": "grouped", "column": "patient"}, "sampler.column"),
        ({"type": "balanced", "column": "x"}, "sampler.column"),
        ({"type": "weighted", "repeats": [1, 2]}, "sampler.repeats"),
        ({"type": "weighted", "repeats": [0, 0, 0, 0]}, "sampler.repeats"),
    ],
)
def test_what_cannot_be_sampled_by_is_refused(images, raw, path):
    with pytest.raises(InvalidRequest) as caught:
        Run.start(planned(images, sampler=raw), images)
    assert [problem.path for problem in caught.value.problems] == [path]


def test_repeats_below_zero_are_refused():
    with pytest.raises(InvalidRequest, match="from -1 to 1"):
        sampler([-1, 1], type="weighted")


def test_the_orders_are_those_that_engine_bits_names():
    values = (uniform(5, 40) * 4).astype(np.int64)
    found = {kind: sampler(values, 42, type=kind).take(0, 8).tolist() for kind in KINDS[1:]}
    assert found == {
        "weighted": [33, 0, 19, 16, 3, 16, 34, 20],
        "balanced": [34, 11, 33, 37, 36, 7, 19, 0],
        "grouped": [34, 31, 3, 19, 4, 16, 26, 13],
    }
