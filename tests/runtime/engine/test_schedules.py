"""Schedules are torch's own curves as functions of the step; the plateau is one of the evaluations before it, too."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter
from torch.optim import lr_scheduler as theirs

from contracts.errors import InvalidRequest
from contracts.request import read_request
from contracts.request.optimizer import Schedule
from runtime.engine.evaluations import EvaluationsView
from runtime.engine.loop import Run
from runtime.engine.parts.schedules import course
from runtime.engine.report import Control
from tests.runtime.engine.plans import finished, planned

TOTAL = 40
SMALL = {"data": {"source": "digits"}, "model": {"architecture": "mlp"}}


def options(**raw):
    return TypeAdapter(Schedule).validate_python(raw)


def ours(total=TOTAL, costs=(), **raw):
    scale = course(options(**raw), total, EvaluationsView(costs))
    return [scale(step) for step in range(total)]


def torchs(make, total=TOTAL):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = make(optimizer)
    found = []
    for _ in range(total):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


CURVES = {
    "linear": ({"floor": 0.25}, lambda o: theirs.LinearLR(o, 1.0, 0.25, TOTAL)),
    "cosine": ({"floor": 0.1}, lambda o: theirs.CosineAnnealingLR(o, TOTAL, 0.1)),
    "one_cycle": ({}, lambda o: theirs.OneCycleLR(o, 1.0, TOTAL, cycle_momentum=False)),
    "cyclic": (
        {"up_steps": 5, "down_steps": 3, "floor": 0.2},
        lambda o: theirs.CyclicLR(o, 0.2, 1.0, 5, 3, cycle_momentum=False),
    ),
    "step": ({"every_steps": 7, "factor": 0.5}, lambda o: theirs.StepLR(o, 7, 0.5)),
    "exponential": ({"factor": 0.9}, lambda o: theirs.ExponentialLR(o, 0.9)),
}


@pytest.mark.parametrize("name", CURVES)
def test_a_curve_is_torchs_own(name):
    raw, make = CURVES[name]
    assert ours(type=name, **raw) == pytest.approx(torchs(make), rel=1e-9)


def test_cycles_may_shrink_and_peaks_may_be_straight():
    found = ours(type="cyclic", up_steps=4, floor=0.2, shrink=0.5)
    assert found == pytest.approx(
        torchs(lambda o: theirs.CyclicLR(o, 0.2, 1.0, 4, mode="triangular2", cycle_momentum=False))
    )
    found = ours(type="one_cycle", shape="linear", rise=0.5, start=0.1, floor=0.001)
    linear = theirs.OneCycleLR
    make = {"pct_start": 0.5, "anneal_strategy": "linear", "div_factor": 10, "final_div_factor": 100}
    assert found == pytest.approx(torchs(lambda o: linear(o, 1.0, TOTAL, cycle_momentum=False, **make)))


@pytest.mark.parametrize("total", [1, 2, 3])
def test_a_training_of_hardly_any_steps_has_a_rate_too(total):
    for name, (raw, _) in CURVES.items():
        assert all(0 <= scale <= 1 for scale in ours(total, type=name, **raw))
    assert ours(total, type="composite", phases=[{}, {"schedule": {"type": "cosine"}}, {"level": 0.5}])


@given(st.sampled_from(sorted(CURVES)), st.integers(1, 30))
@settings(deadline=None)
def test_a_warm_up_leads_in_a_straight_line_to_where_the_schedule_begins(name, warm):
    raw, _ = CURVES[name]
    found = ours(type=name, warmup_steps=warm, **raw)
    first = found[warm]
    assert found[:warm] == pytest.approx([first * (step + 1) / (warm + 1) for step in range(warm)])
    assert found[warm:] == ours(TOTAL - warm, type=name, **raw)


@given(
    values=st.lists(st.one_of(st.floats(0, 1), st.just(math.nan)), max_size=25),
    patience=st.integers(0, 3),
    rest=st.integers(0, 3),
    min_delta=st.sampled_from([0.0, 0.2]),
)
@settings(deadline=None)
def test_a_plateau_cuts_where_torchs_own_does(values, patience, rest, min_delta):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = theirs.ReduceLROnPlateau(
        optimizer, "min", 0.5, patience, threshold=min_delta, threshold_mode="abs", cooldown=rest, min_lr=0.05, eps=0
    )
    expected = [1.0]
    for value in values:
        scheduler.step(value)
        expected.append(optimizer.param_groups[0]["lr"])
    raw = {"factor": 0.5, "patience": patience, "rest": rest, "min_delta": min_delta, "floor": 0.05}
    scale = course(
        options(type="plateau", **raw), 1000, EvaluationsView([(10 * at, one) for at, one in enumerate(values, 1)])
    )
    assert [scale(10 * at) for at in range(len(values) + 1)] == pytest.approx(expected)
    assert [scale(10 * at + 9) for at in range(len(values) + 1)] == pytest.approx(expected)


def test_a_score_that_stands_still_is_a_plateau_as_well_as_a_loss():
    raw = {**SMALL, "early_stopping": {"metric": "val_accuracy"}}
    control = Control.of(read_request(raw).early_stopping)
    control = control.after_all([(10, 0.5), (20, 0.6), (30, 0.6)])
    assert control.costs == ((10, -0.5), (20, -0.6), (30, -0.6))
    assert ours(costs=control.costs, type="plateau", patience=0)[::10] == pytest.approx([1.0, 1.0, 1.0, 0.1])


def test_phases_divide_training_by_their_shares_and_count_their_own_steps():
    phases = [
        {"share": 1, "schedule": {"type": "constant", "warmup_steps": 4}},
        {"share": 2, "level": 0.5, "schedule": {"type": "linear"}},
        {"share": 1, "level": 0.1},
    ]
    found = ours(type="composite", phases=phases)
    assert found[:10] == pytest.approx([0.2, 0.4, 0.6, 0.8, *[1.0] * 6])
    assert found[10:30] == pytest.approx([0.5 * (1 - step / 20) for step in range(20)])
    assert found[30:] == [0.1] * 10


def test_a_plateau_in_a_later_phase_looks_only_at_its_own_evaluations():
    phases = [{}, {"schedule": {"type": "plateau", "patience": 0, "factor": 0.5}}]
    costs = [(10, 1.0), (20, 2.0), (25, 3.0), (30, 3.0)]
    found = ours(costs=costs, type="composite", phases=phases)
    assert (found[19], found[25], found[29], found[30]) == (1.0, 1.0, 1.0, 0.5)


def test_what_is_wrong_inside_a_phase_is_named_by_its_path():
    phases = [{"schedule": {"type": "cosin"}}, {"share": 0}, {"schedule": {"type": "plateau", "patience": -1}}]
    with pytest.raises(InvalidRequest) as caught:
        read_request({**SMALL, "schedule": {"type": "composite", "phases": phases}})
    found = {one.path: one for one in caught.value.problems}
    assert set(found) == {
        "schedule.phases.0.schedule.type", "schedule.phases.1.share", "schedule.phases.2.schedule.patience"
    }  # fmt: skip
    assert "'cosine'" in found["schedule.phases.0.schedule.type"].cure


@pytest.mark.parametrize("nested", [False, True])
def test_a_resume_rebuilds_the_plateau_from_the_recorded_evaluations(images, nested):
    schedule = {"type": "plateau", "patience": 0, "factor": 0.5, "min_delta": 10.0}
    if nested:
        schedule = {"type": "composite", "warmup_steps": 5, "phases": [{"share": 0.2}, {"schedule": schedule}]}
    plan = planned(images, schedule=schedule, early_stopping={"enabled": False})
    run, reports, kept = Run.start(plan, images), [], {}
    while not run.finished:
        reports.append(run.advance())
        kept[run.step] = run.tensors()
    assert len({one.window.learning_rate for one in reports}) > 2
    for step in (10, 50, 80):
        seen = [(one.step, one.evaluation.values["val_loss"]) for one in reports if one.evaluation and one.step <= step]
        control = Control.of(plan.request.early_stopping).after_all(seen)
        assert finished(Run.resume(plan, images, kept[step], step, control=control)) == [
            one for one in reports if one.step > step
        ]
