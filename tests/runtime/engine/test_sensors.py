"""What sensors say of a window is what plain torch, or a pencil, finds another way; and it changes no bit."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from contracts.event import pack, unpack
from contracts.trainer import Layer, WindowRecorded
from runtime.engine import sensors, workload
from runtime.engine.batches import Feed
from runtime.engine.dataset import Dataset, write
from runtime.engine.facts import describe
from runtime.engine.loop import Run
from runtime.engine.plan import Plan
from runtime.engine.ragged import Ragged
from runtime.engine.report import Control, Window
from runtime.engine.resolve import resolve
from runtime.engine.update import OptimizerState
from runtime.engine.workload import Workload
from runtime.replay.comparison import window_event
from tests.runtime.engine.plans import columns, finished, planned

DEEP = {"model": {"architecture": "mlp", "hidden": [16, 12], "activation": "tanh", "dropout": 0.0}}
NAMES = ("body.1", "body.3", "body.5")


def after(plan: Plan, dataset: Dataset, step: int) -> nn.Module:
    """The model after so many attempts, in training mode."""
    run = Run.start(replace(plan, resolved=replace(plan.resolved, window=1, every_steps=1)), dataset)
    while run.step < step:
        run.advance()
    return run._setup.model


def gradients(plan: Plan, dataset: Dataset, step: int) -> list[dict[str, torch.Tensor]]:
    """Of each micro-step of the attempt after `step`: by layer its gradient as one vector, by `torch.autograd`."""
    model, run, found = after(plan, dataset, step), Run.start(plan, dataset), []
    taken = plan.resolved.batch * plan.resolved.accumulate
    rows = run._setup.sampler.take(step * taken, taken)
    split = dataset.columns("train")
    for part in rows.reshape(plan.resolved.accumulate, -1):
        x, y = torch.from_numpy(split["x"][part]), torch.from_numpy(split["y"][part])
        loss = nn.functional.cross_entropy(model(x), y)
        each = torch.autograd.grad(loss, list(model.parameters()))
        named: dict[str, list[torch.Tensor]] = {}
        for (name, _), gradient in zip(model.named_parameters(), each, strict=True):
            named.setdefault(name.rpartition(".")[0], []).append(gradient.flatten())
        found.append({name: torch.cat(pieces) for name, pieces in named.items()})
    return found


def layers(window: Window) -> dict[str, Layer]:
    return {layer.name: layer for layer in window_event(window).layers}


def test_the_cosine_of_successive_gradients_is_that_of_gradients_found_by_autograd(images):
    plan = planned(images, **DEEP, training={"epochs": 2, "batch_size": 16, "grad_clip": 0.01})
    seen = layers(Run.start(plan, images).advance().window)
    each = [gradients(plan, images, step)[0] for step in range(7, 10)]
    for name in NAMES:
        pairs = [nn.functional.cosine_similarity(one[name], two[name], dim=0) for one, two in pairwise(each)]
        assert math.isclose(seen[name].cosine, float(sum(pairs)) / 2, abs_tol=1e-5)
    assert len({layer.cosine for layer in seen.values()}) == 3


def test_the_noise_scale_is_that_of_the_gradients_of_micro_batches(images):
    training = {"epochs": 4, "batch_size": 8, "accumulate": 3, "grad_clip": None}
    plan = planned(images, **DEEP, training=training)
    window = Run.start(plan, images).advance().window
    seen, everything = layers(window), np.zeros(2)
    for name in NAMES:
        scatter = np.zeros(2)
        for step in range(window.last - 3, window.last):
            parts = torch.stack([part[name].double() for part in gradients(plan, images, step)]).numpy()
            # The unbiased variance of means over 8 rows, times 8; and what of the mean's square is not noise.
            variance = 8 * parts.var(0, ddof=1).sum()
            scatter += variance, (parts.mean(0) ** 2).sum() - variance / 24
        everything += scatter
        assert math.isclose(seen[name].noise, scatter[0] / scatter[1], rel_tol=1e-3)
    assert math.isclose(window.sensors.noise_scale, everything[0] / everything[1], rel_tol=1e-3)
    alone = Run.start(planned(images, **DEEP), images).advance().window
    assert (alone.sensors.noise_scale, alone.sensors.noise) == (None, (None,) * 3)


def test_noise_without_a_gradient_is_infinite_and_equal_parts_have_none():
    parameter = nn.Parameter(torch.zeros(3))
    movement = OptimizerState.__new__(OptimizerState)
    movement.parameters, movement.names = [parameter], ["layer.weight"]

    def scale(*parts: list[float]) -> float | None:
        watch = sensors.GradientWatch(movement)
        sums = torch.zeros(3)
        for part in parts:
            sums = sums + torch.tensor(part) / len(parts)
            parameter.grad = sums
            watch.part(4)
        watch.gradients([0], [sums])
        return watch.noise_scale()

    assert scale([1.0, 0, 0], [1.0, 0, 0]) == 0.0
    assert scale([1.0, 0, 0], [-1.0, 0, 0]) == math.inf
    # Squares of parts 2 and 0, of their mean 0.5: 1 = square + variance / 4, 0.5 = square + variance / 8.
    assert scale([1.0, 1.0, 0], [0.0, 0, 0]) == math.inf
    # 5 = square + variance / 4, 4 = square + variance / 8: variance 8, square 3.
    assert math.isclose(scale([2.0, 1.0, 0], [2.0, -1.0, 0]), 8 / 3, rel_tol=1e-6)
    assert scale([math.nan, 0, 0], [1.0, 0, 0]) is None


def test_saturated_are_the_answers_within_a_hundredth_of_the_range_from_a_bound(images):
    class Bounded(Workload):
        def build(self, o, facts):
            activations = [nn.Tanh(), nn.Sigmoid(), nn.ReLU6(), nn.Hardtanh(-1.5, 0.5), nn.ReLU()]
            pieces = [piece for one in activations for piece in (nn.Linear(64, 64), one)]
            torch.manual_seed(3)
            for piece in pieces[::2]:
                nn.init.normal_(piece.weight, std=1.0)
            return nn.Sequential(nn.Flatten(), *pieces, nn.Linear(64, 4))

        def loss(self, model, batch):
            return nn.functional.cross_entropy(model(batch["x"]), batch["y"])

    workload.register("bounded", Bounded)
    plan = planned(images, model={"architecture": "workload", "workload": "bounded"}, resolved={"window": 3})
    seen = layers(Run.start(plan, images).advance().window)
    model = after(plan, images, 2)
    rows = Run.start(plan, images)._setup.sampler.take(32, 16)
    x = torch.from_numpy(images.columns("train")["x"][rows])
    limits = {2: (-0.98, 0.98), 4: (0.01, 0.99), 6: (-math.inf, 5.94), 8: (-1.48, 0.48), 10: (-math.inf, math.inf)}
    with torch.no_grad():
        for at, piece in enumerate(model):
            x = piece(x)
            if at in limits:
                low, high = limits[at]
                share = float(((x <= low) | (x >= high)).float().mean())
                told = seen[str(at - 1)]
                assert told.saturated == (None if at == 10 else pytest.approx(share, abs=1e-6))
                assert (told.dead is None) == (at not in (6, 10))
    assert 0 < seen["1"].saturated < 1
    assert 0 < seen["5"].saturated < 1
    assert seen["11"].saturated is None


def test_of_a_large_parameter_every_kth_number_is_looked_at(images, monkeypatch):
    plan = planned(images, **DEEP, training={"epochs": 2, "batch_size": 16, "grad_clip": None})
    monkeypatch.setattr(sensors, "MOST_NUMBERS", 100)
    seen = layers(Run.start(plan, images).advance().window)
    each = [gradients(plan, images, step)[0]["body.1"].numpy() for step in range(7, 10)]
    # 64 x 16 weights and 16 biases: every 11th number of the weights, which count 11-fold, and every bias.
    weight = np.where(np.arange(1040) < 1024, np.where(np.arange(1040) % 11 == 0, 11.0, 0.0), 1.0)
    norms = [math.sqrt((weight * one**2).sum()) for one in each]
    pairs = [(weight * each[at] * each[at + 1]).sum() / norms[at] / norms[at + 1] for at in range(2)]
    assert math.isclose(seen["body.1"].cosine, sum(pairs) / 2, abs_tol=1e-5)


def test_rows_that_are_not_finite_are_named_when_the_window_is_not(tmp_path):
    splits = {"train": columns(60, 5), "val": columns(20, 6)}
    splits["train"]["x"][[7, 31], 0, 3, 3] = [math.nan, math.inf]
    write(tmp_path, splits, describe({**splits, "train": columns(60, 5)}, "classification"))
    dataset = Dataset.open(tmp_path)
    plan = planned(dataset, training={"epochs": 3, "batch_size": 4}, resolved={"window": 15, "every_steps": 15})
    reports = finished(Run.start(plan, dataset))
    assert [one.window.sensors.rows_not_finite for one in reports if one.window] == [(8, 32)] * 3
    assert window_event(reports[0].window).sensors.rows_not_finite == [8, 32]
    healthy = Run.start(replace(plan, without=((8, 8), (32, 32))), dataset).advance().window
    assert healthy.finite
    assert healthy.sensors.rows_not_finite == ()
    one_left = Run.start(replace(plan, without=((32, 32),)), dataset)
    assert one_left.advance().window.sensors.rows_not_finite == (8,)


def test_rows_of_any_length_are_named_by_their_values_and_at_most_sixteen(tmp_path):
    values = [np.array(row, np.float32) for row in ([1.0], [], [2.0, math.nan, 3.0], [4.0], [math.inf])]
    splits = {"train": {"x": Ragged.of(values)}, "val": {"x": Ragged.of(values)}}
    write(tmp_path / "few", splits, describe(splits, "other"))
    feed = Feed(Dataset.open(tmp_path / "few"), "train", "cpu")
    assert feed.rows_not_finite(np.array([4, 2, 1, 0, 2, 3]), 2) == (3, 5)
    many = {"train": {"x": np.full((40, 2), np.nan, np.float32)}, "val": {"x": np.zeros((2, 2), np.float32)}}
    write(tmp_path / "many", many, describe(many, "other"))
    assert Feed(Dataset.open(tmp_path / "many"), "train", "cpu").rows_not_finite(np.arange(40), 3) == tuple(
        range(1, 17)
    )


def test_figures_of_losses_are_those_of_numpy_and_pass_over_what_is_not_finite():
    losses = np.array([3.0, 2.5, np.nan, 2.75, 1.0, np.inf, 0.5], np.float32)
    kept = [0, 1, 3, 4, 6]

    def of(values: np.ndarray) -> WindowRecorded:
        return WindowRecorded.model_construct(losses=pack(values.astype("<f4").tobytes()))

    seen = of(losses).loss
    assert seen.median == np.median(losses[kept])
    assert math.isclose(seen.spread, float(np.subtract(*np.percentile(losses[kept].astype(float), [75, 25]))))
    assert math.isclose(seen.slope, float(np.polyfit(kept, losses[kept].astype(float), 1)[0]))
    one = of(losses[2:4]).loss
    assert one[:2] == (2.75, 0.0)
    assert math.isnan(one.slope)
    assert all(math.isnan(figure) for figure in of(losses[2:3]).loss)


def test_sensors_change_no_bit_and_a_plan_from_before_them_tells_none(images):
    new = planned(images, training={"epochs": 3, "batch_size": 8, "accumulate": 2})
    old = replace(new, resolved=replace(new.resolved, sensors=0))
    assert "sensors" not in old.resolved.as_json()
    assert Plan.from_json(old.as_json()) == old
    ours, theirs = ([*finished(run := Run.start(plan, images)), run.weights_digest()] for plan in (new, old))
    assert all(one.window.sensors is not None for one in ours[:-1])
    assert [replace(one, window=replace(one.window, sensors=None)) for one in ours[:-1]] == theirs[:-1]
    assert ours[-1] == theirs[-1]
    told = window_event(theirs[0].window)
    assert told.sensors is None
    assert {(layer.saturated, layer.cosine, layer.noise) for layer in told.layers} == {(None, None, None)}


def test_what_begins_in_the_bits_of_another_session_tells_what_that_one_told(images):
    plan = planned(images)
    assert resolve(plan.request, images.facts, cores=1).sensors == 1
    for sensed in (0, 1):
        parent = replace(plan.resolved, sensors=sensed).as_json()
        assert resolve(plan.request, images.facts, cores=1, inherited=parent).sensors == sensed


def test_killed_and_resumed_at_any_step_the_sensors_say_the_same(images):
    plan = planned(images, **DEEP, training={"epochs": 3, "batch_size": 8, "accumulate": 2})
    run = Run.start(plan, images)
    kept, reports = {0: run.tensors()}, []
    while not run.finished:
        reports.append(run.advance())
        kept[run.step] = copy.deepcopy(run.tensors())
    for step, tensors in kept.items():
        costs = [
            (one.step, one.evaluation.values["val_loss"]) for one in reports if one.evaluation and one.step <= step
        ]
        control = Control.of(plan.request.early_stopping).after_all(costs)
        resumed = Run.resume(plan, images, tensors, step, control=control)
        assert finished(resumed) == [one for one in reports if one.step > step]


def test_packed_figures_are_read_back_and_lists_of_another_length_are_none_of_the_layers(images):
    window = Run.start(planned(images, **DEEP), images).advance().window
    event = window_event(window)
    assert len(unpack(event.sensors.cosine)) == 3
    assert event.sensors.noise == ""
    short = event.sensors.model_copy(update={"cosine": pack(bytes(8))})
    assert {layer.cosine for layer in event.model_copy(update={"sensors": short}).layers} == {None}
    body = layers(window)["body.1"]
    assert body.ratio == body.update / body.weight
    assert Layer("none", 1.0, 0.0, 1.0).ratio == 0.0
