"""A curriculum adds rows when the control metric stalls: a function of position and recorded evaluations, no memory."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from contracts.errors import InvalidRequest
from contracts.request import read_request
from contracts.request.sampler import Sampler
from runtime.engine import sampling
from runtime.engine.dataset import Dataset, write
from runtime.engine.evaluations import EvaluationsView
from runtime.engine.facts import describe
from runtime.engine.loop import Run
from runtime.engine.plan import Change
from runtime.engine.ragged import Ragged
from runtime.engine.report import Control
from runtime.engine.sampling import TrainingRows, sampler_of
from runtime.engine.state import digest
from tests.runtime.engine.plans import finished, planned

NEVER_BETTER = {"type": "curriculum", "column": "y", "start": 0.3, "widen": 0.3, "patience": 0, "min_delta": 1e6}


def curriculum(values, seed=1, **raw):
    chosen = TypeAdapter(Sampler).validate_python({**NEVER_BETTER, **raw})
    return sampling.samplers.of(chosen)(chosen, seed, TrainingRows(len(values), {"y": np.asarray(values)}))


def after(values, stalls, seed=1, **raw):
    """Evaluations after these steps of 5 rows, each but the first of which shows a stall."""
    costs = [(step, 1.0) for step in (0, *stalls)]
    return curriculum(values, seed, **raw).after(EvaluationsView(costs), 5)


def test_easy_rows_come_first_and_more_at_every_stall_until_all_come():
    values = [9, 1, 8, 2, 7, 3, 6, 4, 5, 5]
    order = after(values, [4, 8, 12, 16, 20])
    easiest = [1, 3, 5, 7, 8, 9, 6, 4, 2, 0]
    for first, size in ((0, 3), (20, 6), (40, 9), (60, 10), (80, 10)):
        assert sorted(order.take(first, size).tolist()) == sorted(easiest[:size])
    assert order.take(60, 10).tolist() != order.take(70, 10).tolist(), "each round has an order of its own"
    assert set(curriculum(values).take(0, 500).tolist()) == set(easiest[:3])
    assert set(curriculum(values, start=1.0).take(0, 10).tolist()) == set(range(10))
    assert set(curriculum(values, start=0.001).take(0, 10).tolist()) == {1}, "one row at least"


def test_a_stall_is_what_a_plateau_is_for_the_learning_rate():
    costs = [(10, 1.0), (20, 0.9), (30, 0.95), (40, 0.89), (50, 0.85), (60, 0.9), (70, 0.9), (80, float("nan"))]
    seen = EvaluationsView(costs)
    assert list(seen.stalls(patience=1, min_delta=0.02)) == [40, 70]
    assert list(seen.stalls(patience=0, min_delta=0.0)) == [30, 60, 70, 80]
    assert list(seen.stalls(patience=0, min_delta=0.0, rest=1)) == [30, 60, 80]
    assert list(seen.since(30).stalls(patience=0, min_delta=0.0)) == [30, 40, 50]


columns = st.lists(st.integers(0, 5), min_size=1, max_size=40)
steps = st.lists(st.integers(1, 30), max_size=5, unique=True).map(sorted)


@settings(max_examples=60, deadline=None)
@given(columns, steps, st.integers(0, 10**6), st.integers(0, 120), st.integers(1, 120), st.data())
def test_any_cut_is_the_same_rows_and_every_row_is_found_where_it_stands(values, stalls, seed, first, count, data):
    order, middle = after(values, stalls, seed), data.draw(st.integers(0, count))
    whole, turns = order.take(0, first + count).tolist(), order.turns(0, first + count).tolist()
    assert all(turn == whole[:at].count(row) for at, (row, turn) in enumerate(zip(whole, turns, strict=True)))
    for cut, expected in ((order.take, whole), (order.turns, turns)):
        parts = [cut(at, size) for at, size in ((first, middle), (first + middle, count - middle)) if size]
        assert np.concatenate(parts).tolist() == expected[first:]
        assert all(part.dtype == np.int64 for part in parts)
    assert [order.where(row, turn) for row, turn in zip(whole, turns, strict=True)] == list(range(first + count))
    for row in {0, len(values) - 1, len(values) // 2}:
        expected = [at for at in range(first, first + count) if whole[at] == row]
        assert order.comings(row, first, first + count).tolist() == expected
    fewer = after(values, stalls[: len(stalls) // 2], seed)
    seen = 5 * min([30, *stalls[len(stalls) // 2 :]])
    assert fewer.take(0, seen).tolist() == order.take(0, seen).tolist(), "later evaluations change nothing before them"


def test_a_row_that_has_not_come_yet_is_told_so():
    with pytest.raises(ValueError, match="has not stalled often enough"):
        curriculum([0, 1, 2, 3]).where(3, 0)


@pytest.fixture(scope="module")
def trained(images):
    """A run whose control metric counts as stalled at every evaluation, with its state at every grid step."""
    augment = [{"type": "noise"}]
    plan = planned(images, sampler=NEVER_BETTER, augment=augment, early_stopping={"enabled": False})
    run, reports, kept = Run.start(plan, images), [], {}
    while not run.finished:
        reports.append(run.advance())
        kept[run.step] = run.tensors()
    return plan, reports, kept


def control_at(plan, reports, step):
    seen = [(one.step, one.evaluation.values["val_loss"]) for one in reports if one.evaluation and one.step <= step]
    return Control.of(plan.request.early_stopping).after_all(seen)


def test_training_sees_easy_rows_until_the_metric_stalls(images, trained):
    plan, reports, _ = trained
    seen = EvaluationsView(control_at(plan, reports, 10**9).costs)
    order, classes = sampler_of(plan.request, images).after(seen, 16), np.asarray(images.columns("train")["y"])
    second = [one.step for one in reports if one.evaluation][1]
    assert set(classes[order.take(0, 16 * second)].tolist()) < set(classes.tolist())
    assert set(classes[order.take(16 * reports[-1].step - 300, 300).tolist()]) == set(classes.tolist())
    for window in [one.window for one in reports]:
        rows = order.take(16 * window.first, 16 * (window.last - window.first))
        assert digest(rows.astype("<i8").tobytes()) == window.index_digest


def test_resumed_rewound_and_forked_it_takes_the_rows_of_the_recorded_evaluations(images, trained):
    plan, reports, kept = trained
    for step in list(kept)[:-1:3]:
        control = control_at(plan, reports, step)
        for begun in (plan, replace(plan, begins=step)):
            resumed = Run.resume(begun, images, kept[step], step, control=control)
            assert [one.window for one in finished(resumed)] == [one.window for one in reports if one.step > step]
            assert all(torch.equal(one, kept[reports[-1].step][name]) for name, one in resumed.tensors().items())
        order = sampler_of(plan.request, images).after(EvaluationsView(resumed.control.costs), 16)
        assert resumed._setup.feed._turns(0, 16 * resumed.step).tolist() == order.turns(0, 16 * resumed.step).tolist()
    forgetful = Run.resume(plan, images, kept[60], 60)
    told = next(one.window for one in reports if one.step > 60)
    assert forgetful.advance().window.index_digest != told.index_digest, "without the evaluations other rows come"
    rewound = Run.resume(plan, images, kept[40], 40, control=control_at(plan, reports, 40))
    rewound.change(Change.read(40, {"learning_rate": 0.5}))
    windows = {one.window.last: one.window for one in reports}
    first = rewound.advance().window
    assert first.index_digest == windows[first.last].index_digest


def test_rows_of_any_length_come_short_ones_first(tmp_path):
    splits = {}
    for name, rows in (("train", 40), ("val", 8), ("test", 8)):
        lengths = [1 + (7 * at) % 11 for at in range(rows)]
        splits[name] = {"x": Ragged.of([np.arange(length, dtype=np.int32) % 5 for length in lengths])}
    write(tmp_path, splits, describe(splits, "other"))
    dataset = Dataset.open(tmp_path)
    request = read_request(
        {"data": {"source": "digits"}, "model": {"architecture": "mlp"}, "sampler": {**NEVER_BETTER, "column": "x"}}
    )
    sampling.check_sampler(request, dataset.facts)
    first = sampler_of(request, dataset).take(0, 12)
    assert sorted(1 + (7 * int(row)) % 11 for row in first) == sorted(1 + (7 * at) % 11 for at in range(40))[:12]


@pytest.mark.parametrize(
    "changed", [{"column": "x"}, {"column": "patient"}, {"start": 0}, {"widen": 0.001}, {"patience": -1}]
)
def test_what_no_curriculum_can_go_by_is_refused(images, changed):
    with pytest.raises(InvalidRequest) as caught:
        planned(images, sampler={**NEVER_BETTER, **changed})
    assert [one.path for one in caught.value.problems] == [f"sampler.{next(iter(changed))}"]
