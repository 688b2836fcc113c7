"""Losses are torch's own or a few lines of arithmetic; several are weighed as written, or as training finds out."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter
from torch.nn import functional

from contracts.errors import InvalidRequest, UserCodeFailed
from contracts.request import read_request
from contracts.request.loss import Loss, MultiTask
from runtime.engine import kinds, workload
from runtime.engine.checkpoint import load_model
from runtime.engine.evaluate import Judge
from runtime.engine.facts import Column, Facts
from runtime.engine.learner import Blend, Learner
from runtime.engine.loop import Run
from runtime.engine.plain_kinds import metrics
from runtime.engine.workload import Workload
from tests.runtime.engine.plans import finished, planned

COUNTS = (50, 30, 15, 5)
CLASSES = Facts("classification", {"train": 100}, {"x": Column("<f4", (3,))}, 4, counts=COUNTS)
NUMBERS = Facts("regression", {"train": 9}, {"x": Column("<f4", (3,))}, target_mean=100.0, target_scale=10.0)


def option(**raw):
    return TypeAdapter(Loss).validate_python(raw)


def loss_of(facts=CLASSES, **raw):
    chosen = option(**raw)
    return kinds.losses.of(chosen)(chosen, facts)


def some_rows(seed=1, rows=8, classes=4):
    torch.manual_seed(seed)
    return torch.randn(rows, classes), {"y": torch.randint(classes, (rows,))}


def test_losses_for_numbers_are_in_units_of_the_targets_deviation():
    answers, batch = torch.tensor([[110.0], [100.0]]), {"y": torch.tensor([100.0, 100.0])}
    assert loss_of(NUMBERS, type="mse")(answers, batch) == pytest.approx(0.5)
    assert loss_of(NUMBERS, type="huber", delta=0.5)(answers, batch) == pytest.approx(0.5 * (1 - 0.25) / 2)


def test_cross_entropy_is_torchs_own():
    answers, batch = some_rows()
    expected = functional.cross_entropy(answers, batch["y"], label_smoothing=0.2)
    assert loss_of(type="cross_entropy", label_smoothing=0.2)(answers, batch) == expected


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_weights_of_classes_are_torchs_own_and_a_mean_over_rows(smoothing):
    answers, batch = some_rows()
    weights = torch.tensor([1.0, 2.0, 0.5, 4.0])
    loss = loss_of(type="cross_entropy", label_smoothing=smoothing, class_weights=weights.tolist())
    expected = functional.cross_entropy(answers, batch["y"], weights, label_smoothing=smoothing, reduction="sum") / 8
    assert loss(answers, batch) == pytest.approx(float(expected))
    halves = [loss(answers[at : at + 4], {"y": batch["y"][at : at + 4]}) for at in (0, 4)]
    assert float(sum(halves)) / 2 == pytest.approx(float(expected))


def test_balanced_weights_make_every_class_count_alike():
    answers = torch.zeros(100, 4)
    batch = {"y": torch.repeat_interleave(torch.arange(4), torch.tensor(COUNTS))}
    loss = loss_of(type="cross_entropy", class_weights="balanced")
    assert loss(answers, batch) == pytest.approx(math.log(4))
    for label, count in enumerate(COUNTS):
        alone = loss(answers[:count], {"y": batch["y"][batch["y"] == label]})
        assert float(alone) * count == pytest.approx(100 / 4 * math.log(4))


def test_weights_that_do_not_fit_the_classes_are_refused():
    with pytest.raises(InvalidRequest, match="3 weights, and 4 classes"):
        loss_of(type="focal", class_weights=[1, 2, 3])
    uncounted = Facts("classification", {"train": 9}, {"x": Column("<f4", (3,))}, 4)
    with pytest.raises(InvalidRequest, match="not counted"):
        loss_of(uncounted, type="cross_entropy", class_weights="balanced")


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_loss_is_cross_entropy_times_what_is_missing(gamma):
    answers, batch = some_rows()
    chance = answers.softmax(1)[torch.arange(8), batch["y"]]
    expected = ((1 - chance) ** gamma * -chance.log()).mean()
    assert loss_of(type="focal", gamma=gamma)(answers, batch) == pytest.approx(float(expected), rel=1e-5)
    weighted = loss_of(type="focal", gamma=0, class_weights=[1, 2, 0.5, 4])(answers, batch)
    same = loss_of(type="cross_entropy", class_weights=[1, 2, 0.5, 4])(answers, batch)
    assert weighted == pytest.approx(float(same))


def test_a_row_that_is_certain_has_a_finite_slope():
    for gamma in (0.5, 1.0, 2.0):
        answers = torch.tensor([[200.0, 0, 0, 0], [0.0, 0, 0, 0]], requires_grad=True)
        loss_of(type="focal", gamma=gamma)(answers, {"y": torch.tensor([0, 1])}).backward()
        assert torch.isfinite(answers.grad).all()


def test_binary_cross_entropy_is_torchs_own_for_each_class_against_the_rest():
    answers, batch = some_rows()
    expected = functional.binary_cross_entropy_with_logits(answers, functional.one_hot(batch["y"], 4).float())
    assert loss_of(type="bce")(answers, batch) == expected


def test_contrastive_loss_is_the_surprise_at_the_fellows_of_each_row():
    answers, batch = some_rows(rows=9)
    batch["y"][0] = 99  # without a fellow, it does not count
    directions = functional.normalize(answers, dim=1).double().numpy()
    y, losses = batch["y"].tolist(), []
    for row in range(9):
        fellows = [other for other in range(9) if other != row and y[other] == y[row]]
        alike = {other: math.exp(directions[row] @ directions[other] / 0.5) for other in range(9) if other != row}
        if fellows:
            losses.append(-np.mean([math.log(alike[other] / sum(alike.values())) for other in fellows]))
    found = loss_of(type="contrastive", temperature=0.5)(answers, batch)
    assert found == pytest.approx(np.mean(losses), rel=1e-5)


def test_triplet_loss_is_what_lacks_of_the_margin_between_farthest_fellow_and_nearest_stranger():
    answers, batch = some_rows(rows=9)
    batch["y"][0] = 99
    directions = functional.normalize(answers, dim=1).double().numpy()
    y, losses = batch["y"].tolist(), []
    for row in range(9):
        far = {other: float(((directions[row] - directions[other]) ** 2).sum()) for other in range(9) if other != row}
        fellows, strangers = ([far[o] for o in far if (y[o] == y[row]) == same] for same in (True, False))
        if fellows:
            losses.append(max(0.0, max(fellows) - min(strangers) + 0.7))
    found = loss_of(type="triplet", margin=0.7)(answers, batch)
    assert found == pytest.approx(np.mean(losses), rel=1e-5)


def test_a_stranger_on_the_opposite_side_is_as_far_as_it_is():
    """Squared, 4 is as far as can be; what is no stranger must not pass for one that is nearer."""
    answers = torch.tensor([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]])
    loss = loss_of(type="triplet", margin=4.0)(answers, {"y": torch.tensor([0, 0, 1])})
    assert loss == 0


@pytest.mark.parametrize("kind", ["cross_entropy", "focal", "bce"])
def test_a_loss_of_half_precision_answers_is_computed_in_single_precision(kind):
    answers, batch = some_rows()
    half = answers.bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found = loss_of(type=kind)(half, batch)
    assert found.dtype == torch.float32
    assert found == loss_of(type=kind)(half.float(), batch)


@pytest.mark.parametrize("kind", ["focal", "bce", "contrastive", "triplet"])
def test_a_loss_that_makes_answers_single_precision_does_so_without_autocast_as_well(kind):
    answers, batch = some_rows()
    half = answers.bfloat16()
    assert loss_of(type=kind)(half, batch) == loss_of(type=kind)(half.float(), batch)
    assert loss_of(type=kind)(half, batch).dtype == torch.float32


@pytest.mark.parametrize("kind", ["mse", "huber"])
def test_a_loss_of_half_precision_numbers_is_a_single_precision_number(kind):
    answers, batch = torch.tensor([[1.0], [3.0]]).bfloat16(), {"y": torch.tensor([1.5, 3.0])}
    units = Facts("regression", {"train": 9}, {"x": Column("<f4", (3,))})
    with torch.autocast("cpu", torch.bfloat16):
        found = loss_of(units, type=kind)(answers, batch)
    assert (found.dtype, float(found)) == (torch.float32, 0.125 if kind == "mse" else 0.0625)


@pytest.mark.parametrize("kind", ["contrastive", "triplet"])
def test_a_batch_without_fellows_costs_nothing_and_moves_nothing(kind):
    for rows in (1, 4):
        answers = torch.randn(rows, 3, requires_grad=True)
        loss = loss_of(type=kind)(answers, {"y": torch.arange(rows)})
        loss.backward()
        assert loss == 0
        assert not answers.grad.any()


TERMS = [
    {"name": "likely", "weight": 2.0, "loss": {"type": "cross_entropy"}},
    {"name": "each", "weight": 0.5, "loss": {"type": "bce"}},
]


def blend(adaptive):
    return Blend(MultiTask(type="multi_task", terms=TERMS, adaptive=adaptive))


def test_a_fixed_blend_is_the_weighted_sum_of_its_terms():
    losses = {"likely": torch.tensor(3.0), "each": torch.tensor(4.0), "other": torch.tensor(9.0)}
    loss, told = blend(adaptive=False)(losses)
    assert loss == 8.0
    assert told == losses
    assert not blend(adaptive=False).tensors()


def test_an_adaptive_blend_trusts_by_uncertainty_and_is_judged_as_written():
    found = blend(adaptive=True)
    torch.nn.init.constant_(found.balance, math.log(2.0))
    losses = {"likely": torch.tensor(3.0), "each": torch.tensor(4.0)}
    loss, told = found(losses)
    assert loss.item() == pytest.approx(4.0 + 2 * math.log(2.0))
    assert float(told["weight_likely"]) == pytest.approx(1.0)
    assert found.fixed(losses) == 8.0
    loss.backward()
    assert found.balance.grad.tolist() == pytest.approx([1 - 3.0, 1 - 1.0])


def test_a_blend_without_one_of_its_terms_says_which():
    with pytest.raises(UserCodeFailed, match="'each'"):
        blend(adaptive=False)({"likely": torch.tensor(1.0)})


@pytest.mark.parametrize("adaptive", [False, True])
def test_a_blended_training_resumes_and_is_judged_alike_elsewhere(images, adaptive):
    raw = {"type": "multi_task", "terms": TERMS, "adaptive": adaptive}
    plan = planned(images, loss=raw, early_stopping={"enabled": False})
    run = Run.start(plan, images)
    first = run.advance()
    kept = run.tensors()
    assert ("loss.balance" in kept) == adaptive
    assert {"likely", "each"} <= set(first.window.scalars)
    last = finished(run)[-1]
    resumed = Run.resume(plan, images, kept, 10)
    assert finished(resumed)[-1].window == last.window
    if adaptive:
        assert run.tensors()["loss.balance"].ne(kept["loss.balance"]).all()
    model = load_model(plan.request, images.facts, run.tensors())
    judge = Judge(Learner(plan.request, images.facts), plan.resolved, images)
    assert judge.values(model) == last.evaluation.values


class TwoHeads(Workload):
    """Two losses by name, and none called `loss`."""

    def build(self, o, facts):
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, facts.classes))

    def loss(self, model, batch):
        answers = model(batch["x"])
        return {"class": functional.cross_entropy(answers, batch["y"]), "size": answers.square().mean()}


def test_losses_that_a_workload_names_are_weighed_by_the_request(images):
    workload.register("heads", TwoHeads)
    raw = {"type": "multi_task", "terms": [{"name": "class"}, {"name": "size", "weight": 0.1}], "adaptive": True}
    run = Run.start(planned(images, model={"architecture": "workload", "workload": "heads"}, loss=raw), images)
    report = run.advance()
    assert set(report.window.scalars) == {"class", "size", "weight_class", "weight_size"}
    assert "loss.balance" in run.tensors()


def test_one_loss_where_several_were_asked_for_is_said(images):
    class OneHead(TwoHeads):
        def loss(self, model, batch):
            return functional.cross_entropy(model(batch["x"]), batch["y"])

    workload.register("heads", OneHead)
    raw = {"type": "multi_task", "terms": [{"name": "class"}]}
    run = Run.start(planned(images, model={"architecture": "workload", "workload": "heads"}, loss=raw), images)
    with pytest.raises(UserCodeFailed, match="'class'"):
        run.advance()


SMALL = {"data": {"source": "digits"}, "model": {"architecture": "mlp"}}


@pytest.mark.parametrize(
    ("sections", "path"),
    [
        ({"loss": {"type": "mse"}}, "loss.type"),
        ({"loss": {"type": "multi_task", "terms": [{"name": "a"}]}}, "loss.terms.0.loss"),
        ({"loss": {"type": "multi_task", "terms": [{"name": "a", "loss": {"type": "mse"}}]}}, "loss.type"),
        ({"loss": {"type": "multi_task", "terms": TERMS + TERMS}}, "loss.terms"),
        ({"loss": {"type": "triplet"}, "data": {"source": "diabetes"}}, "loss.type"),
        ({"loss": {"type": "triplet"}, "validation": {"metrics": ["accuracy"]}}, "validation.metrics.0"),
        ({"loss": {"type": "focal", "class_weights": "even"}}, "loss.class_weights"),
        ({"model": {"architecture": "workload", "workload": "x"}, "loss": {"type": "bce"}}, "loss.type"),
    ],
)
def test_a_loss_that_does_not_suit_is_refused_by_its_path(sections, path):
    with pytest.raises(InvalidRequest) as caught:
        read_request({**SMALL, **sections})
    assert path in [problem.path for problem in caught.value.problems]
    assert all(problem.cure for problem in caught.value.problems)


def test_a_loss_that_data_turns_out_not_to_suit_is_refused_then(numbers):
    for kind in ("cross_entropy", "contrastive"):
        with pytest.raises(InvalidRequest) as caught:
            planned(numbers, loss={"type": kind})
        assert [problem.path for problem in caught.value.problems] == ["loss.type"]


def test_rows_come_to_lie_near_rows_of_their_class(images):
    for kind in ("contrastive", "triplet"):
        plan = planned(
            images,
            loss={"type": kind, "width": 8},
            training={"epochs": 30, "batch_size": 32},
            optimizer={"type": "adamw", "learning_rate": 0.01},
        )
        reports = [one.evaluation for one in finished(Run.start(plan, images)) if one.evaluation]
        assert reports[-1].values["val_neighbour_accuracy"] > 0.7
        assert set(reports[-1].values) == {"val_loss", "val_neighbour_accuracy"}


def test_the_nearest_neighbour_is_another_row():
    answers = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [-1.0, 0.05]])
    for labels in itertools.product((0, 1), repeat=4):
        found = metrics.of("neighbour_accuracy").over(answers, {"y": torch.tensor(labels)})
        right = [labels[0] == labels[1], labels[1] == labels[0], labels[2] == labels[1], labels[3] == labels[2]]
        assert found == sum(right) / 4
