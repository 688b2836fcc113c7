"""Every option has a part and every part an option; the arithmetic is torch's own."""

from __future__ import annotations

import math
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as oracle

from contracts.request.loss import LOSSES, AutoLoss, Loss, Mse, MultiTask
from contracts.request.model import BUILT_IN, Model, WorkloadModel
from contracts.request.optimizer import Gradient, Optimizer, OwnOptimizer, Schedule
from contracts.request.sampler import Sampler
from contracts.request.section import Task
from runtime.engine import kinds, sampling
from runtime.engine.plain_kinds import metrics


def options(union):
    return set(get_args(get_args(union)[0]))


@pytest.mark.parametrize(
    ("registry", "wanted"),
    [
        (kinds.models, options(Model) - {WorkloadModel}),
        (kinds.losses, options(Loss) - {AutoLoss, MultiTask}),
        (kinds.tasks, set(get_args(Task))),
        (kinds.optimizers, options(Optimizer) - {OwnOptimizer}),
        (kinds.filters, options(Gradient)),
        (kinds.schedules, options(Schedule)),
        (sampling.samplers, options(Sampler)),
    ],
)
def test_every_option_has_a_part_and_every_part_an_option(registry, wanted):
    assert set(registry.all) == wanted


def test_what_stands_for_all_options_holds_them_all():
    assert set(LOSSES) == options(Loss) - {AutoLoss, MultiTask}
    assert set(BUILT_IN) == options(Model) - {WorkloadModel}


def test_two_parts_for_one_option_are_a_mistake():
    kinds.losses.of(Mse(type="mse"))
    with pytest.raises(ValueError, match="two parts"):
        kinds.losses.part(Mse)(lambda *_: None)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40))
@settings(deadline=None, max_examples=40)
def test_metrics_for_classes_agree_with_scikit_learn(pairs):
    truth, said = (np.array(side) for side in zip(*pairs, strict=True))
    answers, batch = torch.nn.functional.one_hot(torch.from_numpy(said), 4).float(), {"y": torch.from_numpy(truth)}
    assert metrics.of("accuracy").over(answers, batch) == pytest.approx(oracle.accuracy_score(truth, said))
    assert metrics.of("f1_macro").over(answers, batch) == pytest.approx(oracle.f1_score(truth, said, average="macro"))


def test_metrics_for_numbers_agree_with_scikit_learn():
    truth, said = np.array([1.0, 2.0, 4.0], np.float32), np.array([1.5, 2.0, 3.0], np.float32)
    answers, batch = torch.from_numpy(said)[:, None], {"y": torch.from_numpy(truth)}
    assert metrics.of("rmse").over(answers, batch) == pytest.approx(oracle.root_mean_squared_error(truth, said))
    assert metrics.of("mae").over(answers, batch) == pytest.approx(oracle.mean_absolute_error(truth, said))
    assert metrics.of("r2").over(answers, batch) == pytest.approx(oracle.r2_score(truth, said))


def test_metrics_of_what_is_not_finite_are_not_numbers_and_do_not_raise():
    batch = {"y": torch.tensor([1.0, 2.0])}
    for bad in (math.inf, math.nan, -math.inf):
        answers = torch.tensor([[bad], [-bad]])
        assert not math.isfinite(metrics.of("rmse").over(answers, batch))
        assert not math.isfinite(metrics.of("mae").over(answers, batch))
