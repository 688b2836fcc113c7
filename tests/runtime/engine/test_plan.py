"""With the step, everything that is not state follows from the plan."""

from __future__ import annotations

import math

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.errors import InvalidRequest
from contracts.request import read_request
from runtime.engine.facts import Column, Facts
from runtime.engine.plan import Change, Plan, ResolvedValues
from runtime.engine.resolve import resolve

RAW = {"data": {"source": "digits"}, "model": {"architecture": "mlp", "hidden": [8]}}


def facts(rows=1437, val=180):
    columns = {"x": Column("<f4", (1, 8, 8)), "y": Column("<i8", ())}
    return Facts("classification", {"train": rows, "val": val, "test": 0}, columns, 10, mean=(0.0,), scale=(1.0,))


def plan(rows=1437, **sections):
    request = read_request({**RAW, **sections})
    return Plan(request, resolve(request, facts(rows), cores=4))


def test_every_auto_becomes_a_number():
    resolved = plan().resolved
    assert resolved.steps_total == math.ceil(20 * 1437 / 64)
    assert (resolved.window, resolved.threads, resolved.device, resolved.profile) == (50, 1, "cpu", "exact")
    assert ResolvedValues(**resolved.as_json()) == resolved


def test_a_large_model_takes_the_cores_and_shorter_windows():
    request = read_request({**RAW, "model": {"architecture": "mlp", "hidden": [4096, 4096]}})
    resolved = resolve(request, facts(), cores=4)
    assert (resolved.threads, resolved.window) == (4, 20)
    given_threads = read_request({**RAW, "training": {"threads": 3}})
    assert resolve(given_threads, facts(), cores=4).threads == 3


def test_a_long_session_has_at_least_sixteen_spans_of_at_most_about_a_minute():
    short, long = plan(training={"epochs": 400}).resolved, plan(rows=10**7).resolved
    assert 15 <= short.steps_total / short.every_steps <= 18
    assert long.every_steps * 250e-6 < 90
    assert long.steps_total / long.every_steps >= 15


def test_given_checkpoint_steps_round_up_to_the_window_grid():
    assert plan(checkpoints={"every_steps": 51}).resolved.every_steps == 100


@pytest.mark.parametrize(
    ("sections", "path"),
    [
        ({"training": {"device": "cuda"}}, "training.device"),
        ({"training": {"precision": "fp16"}}, "training.precision"),
    ],
)
def test_what_this_machine_cannot_do_is_refused_with_a_cure(sections, path):
    with pytest.raises(InvalidRequest) as caught:
        plan(**sections)
    assert caught.value.problems[0].path == path
    assert caught.value.problems[0].cure


def test_without_rows_to_evaluate_on_nothing_is_trained():
    with pytest.raises(InvalidRequest, match="evaluate"):
        resolve(read_request(RAW), facts(val=0), cores=1)


@settings(max_examples=60)
@given(
    rows=st.integers(1, 700),
    batch=st.integers(1, 90),
    accumulate=st.integers(1, 3),
    epochs=st.integers(1, 12),
    every=st.integers(1, 4),
)
def test_the_grid_holds_windows_evaluations_plans_and_the_end_and_nothing_else(rows, batch, accumulate, epochs, every):
    request = read_request(
        {
            **RAW,
            "training": {"epochs": epochs, "batch_size": batch, "accumulate": accumulate},
            "validation": {"every_epochs": every},
        }
    )
    made = Plan(request, resolve(request, facts(rows), cores=1))
    total, window, planned = made.resolved.steps_total, made.resolved.window, made.resolved.every_steps
    evaluations = {math.ceil(epoch * rows / (batch * accumulate)): epoch for epoch in range(every, epochs + 1, every)}
    wanted = {*range(window, total, window), *range(planned, total, planned), *evaluations, total}
    grid = [0]
    while grid[-1] < total:
        grid.append(made.next_grid(grid[-1]))
    assert grid[1:] == sorted(step for step in wanted if step <= total)
    for step in grid[1:-1]:
        assert (made.evaluated_epoch(step) is not None) == (step in evaluations)
        assert made.evaluated_epoch(step) == evaluations.get(step)
    assert made.evaluated_epoch(total) is not None


def test_a_rewind_goes_to_the_planned_checkpoint_before_the_evidence():
    made = plan(checkpoints={"every_steps": 100})
    assert [made.rewind_target(step) for step in (0, 99, 100, 437)] == [0, 0, 100, 400]


def test_schedules_are_closed_forms_of_the_step():
    def rates(schedule, steps):
        made = plan(optimizer={"type": "sgd", "learning_rate": 1.0}, schedule=schedule)
        return [made.at(step).learning_rate for step in steps]

    total = plan().resolved.steps_total
    assert rates({"type": "constant"}, (0, total - 1)) == [1.0, 1.0]
    assert rates({"type": "constant", "warmup_steps": 3}, range(5)) == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert rates({"type": "linear", "floor": 0.1}, (0, total)) == pytest.approx([1.0, 0.1])
    assert rates({"type": "cosine"}, (0, total // 2, total)) == pytest.approx([1.0, 0.5, 0.0])
    assert rates({"type": "step", "every_steps": 10, "factor": 0.5}, (0, 9, 10, 25)) == [1.0, 1.0, 0.5, 0.25]
    assert min(rates({"type": "cosine", "warmup_steps": 50}, range(total))) > 0


def test_a_segment_keeps_what_earlier_ones_decided_and_superseded_steps_do_not_count():
    made = (
        plan()
        .after(Change.read(200, {"learning_rate": 0.1}))
        .after(Change.read(100, {"learning_rate": 0.5, "grad_clip": 0.25}))
    )
    assert [made.segment_at(step) for step in (0, 99, 100, 199, 200, 300)] == [1, 1, 3, 3, 3, 3]
    assert made.at(99).learning_rate == 1e-3
    assert made.at(99).grad_clip == 1.0
    assert made.at(100)[:2] == (pytest.approx(0.5e-4), 0.25)
    assert made.at(300) == made.at(100)


def test_a_stop_ends_the_plan_where_it_was_decided():
    made = plan().after(Change.read(150, {"stop": True}))
    assert made.last_step == 150
    assert made.next_grid(140) == 150
    assert made.evaluated_epoch(150) == 7


def test_a_plan_is_plain_data():
    made = plan().after(Change.read(100, {"learning_rate": 0.5})).after(Change.read(150, {"stop": True}))
    assert Plan.from_json(orjson.loads(orjson.dumps(made.as_json()))) == made
