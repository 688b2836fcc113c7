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

from contracts.request.loss import AutoLoss, CrossEntropy, Huber, Loss, Mse
from contracts.request.model import Cnn, Linear, Mlp, Model, WorkloadModel
from contracts.request.optimizer import Adam, AdamW, Optimizer, Sgd
from contracts.request.schedule import Schedule
from contracts.request.validation import TASK_OF, Metric
from runtime.engine import kinds
from runtime.engine.facts import Column, Facts
from runtime.engine.movement import Movement
from runtime.engine.parts.gradients.clip import clip, norms_of
from runtime.engine.workload import Group

IMAGES = Facts("classification", {"train": 9}, {"x": Column("<f4", (1, 8, 8))}, 10, mean=(0.5,), scale=(2.0,))
NUMBERS = Facts(
    "regression", {"train": 9}, {"x": Column("<f4", (3,))}, 1, mean=(1.0, 2.0, 3.0), scale=(1.0, 2.0, 4.0),
    target_mean=100.0, target_scale=10.0,
)  # fmt: skip


def options(union):
    return set(get_args(get_args(union)[0]))


@pytest.mark.parametrize(
    ("registry", "wanted"),
    [
        (kinds.models, options(Model) - {WorkloadModel}),
        (kinds.losses, options(Loss) - {AutoLoss}),
        (kinds.optimizers, options(Optimizer)),
        (kinds.schedules, options(Schedule)),
        (kinds.metrics, set(get_args(Metric))),
    ],
)
def test_every_option_has_a_part_and_every_part_an_option(registry, wanted):
    assert set(registry.all) == wanted


def test_every_metric_belongs_to_a_task():
    assert set(TASK_OF) == set(get_args(Metric))


def test_two_parts_for_one_option_are_a_mistake():
    kinds.losses.of(Mse(type="mse"))
    with pytest.raises(ValueError, match="two parts"):
        kinds.losses.part(Mse)(lambda *_: None)


TORCH = {
    "sgd": (Sgd(type="sgd", learning_rate=0.1), torch.optim.SGD, {"lr": 0.1}),
    "momentum": (
        Sgd(type="sgd", momentum=0.9, nesterov=True, weight_decay=0.1),
        torch.optim.SGD,
        {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
    ),
    "adam": (Adam(type="adam", weight_decay=0.1), torch.optim.Adam, {"lr": 0.1, "weight_decay": 0.1}),
    "adamw": (AdamW(type="adamw", betas=(0.8, 0.99)), torch.optim.AdamW, {"lr": 0.1, "betas": (0.8, 0.99)}),
}


@pytest.mark.parametrize("name", TORCH)
def test_an_optimizer_moves_exactly_as_torchs_own(name):
    chosen, theirs, arguments = TORCH[name]
    torch.manual_seed(1)
    one, other = torch.nn.Linear(9, 7), torch.nn.Linear(9, 7)
    other.load_state_dict(one.state_dict())
    movement, optimizer = (
        Movement(chosen, one, [Group(list(one.parameters()))]),
        theirs(other.parameters(), fused=True, **arguments),
    )
    for _ in range(5):
        for mine, its in zip(one.parameters(), other.parameters(), strict=True):
            mine.grad = torch.randn_like(mine)
            its.grad = mine.grad.clone()
        movement.move(0.1)
        optimizer.step()
    for mine, its in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(mine, its)


def test_a_parameter_without_gradient_stays_as_it_is_and_so_does_its_memory():
    model = torch.nn.Linear(3, 2)
    movement = Movement(AdamW(type="adamw"), model, [Group(list(model.parameters()))])
    bias = model.bias.detach().clone()
    model.weight.grad = torch.ones_like(model.weight)
    movement.move(0.1)
    assert torch.equal(model.bias, bias)
    assert movement.tensors()["optimizer.first_moment.bias"].eq(0).all()
    assert movement.tensors()["optimizer.first_moment.weight"].ne(0).all()


def test_groups_have_their_own_rate_and_decay():
    model = torch.nn.Linear(3, 2)
    groups = [Group([model.weight], rate=0.0), Group([model.bias], weight_decay=0.5)]
    movement = Movement(Sgd(type="sgd"), model, groups)
    weight, bias = model.weight.detach().clone(), model.bias.detach().clone()
    model.weight.grad, model.bias.grad = torch.ones(2, 3), torch.zeros(2)
    movement.move(0.1)
    assert torch.equal(model.weight, weight)
    assert torch.allclose(model.bias, bias * 0.95)


@given(st.floats(0.01, 100), st.integers(1, 5))
@settings(max_examples=20, deadline=None)
def test_clipping_is_exactly_torchs_own(limit, seed):
    torch.manual_seed(seed)
    parameters = [torch.nn.Parameter(torch.zeros(shape)) for shape in ((3, 4), (5,), ())]
    for one in parameters:
        one.grad = torch.randn_like(one)
    gradients = [one.grad.clone() for one in parameters]
    _, norm = norms_of(gradients)
    clip(gradients, norm, limit)
    assert torch.nn.utils.clip_grad_norm_(parameters, limit) == norm
    assert all(torch.equal(mine, one.grad) for mine, one in zip(gradients, parameters, strict=True))


@pytest.mark.parametrize("model", [Linear(architecture="linear"), Mlp(architecture="mlp"), Cnn(architecture="cnn")])
def test_a_model_takes_raw_rows_and_answers_one_number_per_class(model):
    built = kinds.models.of(model)(model, IMAGES)
    assert built(torch.rand(5, 1, 8, 8)).shape == (5, 10)
    assert built.inputs(torch.full((1, 1, 8, 8), 2.5)).eq(1).all()


def test_the_cnn_is_large_enough_to_be_called_one():
    chosen = Cnn(architecture="cnn")
    assert sum(one.numel() for one in kinds.models.of(chosen)(chosen, IMAGES).parameters()) >= 100_000


def test_regression_answers_in_the_targets_units():
    chosen = Linear(architecture="linear")
    built = kinds.models.of(chosen)(chosen, NUMBERS)
    torch.nn.init.zeros_(built.body[1].weight)
    torch.nn.init.zeros_(built.body[1].bias)
    assert built(torch.rand(4, 3)).eq(100).all()


def test_losses_for_numbers_are_in_units_of_the_targets_deviation():
    answers, batch = torch.tensor([[110.0], [100.0]]), {"y": torch.tensor([100.0, 100.0])}
    assert kinds.losses.of(Mse(type="mse"))(Mse(type="mse"), NUMBERS)(answers, batch) == pytest.approx(0.5)
    huber = Huber(type="huber", delta=0.5)
    assert kinds.losses.of(huber)(huber, NUMBERS)(answers, batch) == pytest.approx(0.5 * (1 - 0.25) / 2)


def test_cross_entropy_is_torchs_own():
    chosen = CrossEntropy(type="cross_entropy", label_smoothing=0.2)
    answers, batch = torch.randn(8, 10), {"y": torch.arange(8)}
    expected = torch.nn.functional.cross_entropy(answers, batch["y"], label_smoothing=0.2)
    assert kinds.losses.of(chosen)(chosen, IMAGES)(answers, batch) == expected


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40))
@settings(deadline=None, max_examples=40)
def test_metrics_for_classes_agree_with_scikit_learn(pairs):
    truth, said = (np.array(side) for side in zip(*pairs, strict=True))
    answers, batch = torch.nn.functional.one_hot(torch.from_numpy(said), 4).float(), {"y": torch.from_numpy(truth)}
    assert kinds.metrics.of("accuracy")(answers, batch) == pytest.approx(oracle.accuracy_score(truth, said))
    assert kinds.metrics.of("f1_macro")(answers, batch) == pytest.approx(oracle.f1_score(truth, said, average="macro"))


def test_metrics_for_numbers_agree_with_scikit_learn():
    truth, said = np.array([1.0, 2.0, 4.0], np.float32), np.array([1.5, 2.0, 3.0], np.float32)
    answers, batch = torch.from_numpy(said)[:, None], {"y": torch.from_numpy(truth)}
    assert kinds.metrics.of("rmse")(answers, batch) == pytest.approx(oracle.root_mean_squared_error(truth, said))
    assert kinds.metrics.of("mae")(answers, batch) == pytest.approx(oracle.mean_absolute_error(truth, said))
    assert kinds.metrics.of("r2")(answers, batch) == pytest.approx(oracle.r2_score(truth, said))


def test_metrics_of_what_is_not_finite_are_not_numbers_and_do_not_raise():
    batch = {"y": torch.tensor([1.0, 2.0])}
    for bad in (math.inf, math.nan, -math.inf):
        answers = torch.tensor([[bad], [-bad]])
        assert not math.isfinite(kinds.metrics.of("rmse")(answers, batch))
        assert not math.isfinite(kinds.metrics.of("mae")(answers, batch))
