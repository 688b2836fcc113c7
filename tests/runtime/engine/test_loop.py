"""The same request gives the same bits: twice, after any resume, and after a rewind."""

from __future__ import annotations

import copy
import dataclasses
import math

import numpy as np
import pytest
import torch

from runtime.engine import random_keys
from runtime.engine.dataset import Dataset, write
from runtime.engine.loop import Run
from runtime.engine.plan import Change
from runtime.engine.report import Control
from tests.runtime.engine.plans import finished, planned

CNN = {"architecture": "cnn", "channels": [4, 8], "dropout": 0.2}
SETUPS = {
    "mlp": {},
    "cnn": {"model": CNN},
    "accumulating": {"training": {"epochs": 8, "batch_size": 8, "accumulate": 3, "grad_clip": None}},
    "sgd": {"optimizer": {"type": "sgd", "learning_rate": 0.05, "momentum": 0.9}, "schedule": {"type": "cosine"}},
    "bf16": {"training": {"epochs": 6, "batch_size": 16, "precision": "bf16"}},
}


def windows(reports):
    return {(one.window.segment, one.window.first): one.window for one in reports if one.window}


def evaluations(reports, up_to):
    return [
        (one.step, one.evaluation.values[one.evaluation.metric])
        for one in reports
        if one.evaluation and one.step <= up_to
    ]


@pytest.mark.parametrize("setup", SETUPS)
def test_twice_the_same_request_twice_the_same_bits(images, setup):
    plan = planned(images, **SETUPS[setup])
    one, other = Run.start(plan, images), Run.start(plan, images)
    assert finished(one) == finished(other)
    assert one.weights_digest() == other.weights_digest()


@pytest.mark.parametrize("setup", SETUPS)
def test_resumed_from_any_checkpoint_it_reports_the_same_and_ends_in_the_same_bits(images, setup):
    plan = planned(images, **SETUPS[setup])
    run = Run.start(plan, images)
    kept, reports = {0: run.tensors()}, []
    while not run.finished:
        reports.append(run.advance())
        kept[run.step] = run.tensors()
    for step, tensors in kept.items():
        control = Control.of(plan.request.early_stopping).after_all(evaluations(reports, step))
        resumed = Run.resume(plan, images, copy.deepcopy(tensors), step, control=control)
        assert finished(resumed) == [one for one in reports if one.step > step]
        assert resumed.weights_digest() == run.weights_digest()


def test_every_part_of_an_accumulated_attempt_has_a_seed_of_its_own(images):
    training = {"epochs": 8, "batch_size": 8, "accumulate": 3}
    run = Run.start(planned(images, training=training, reproducibility={"seed": 3}), images)
    given = [seed for attempt in run._parts(2, np.arange(48)) for seed, _ in attempt]
    assert given == random_keys.step_seeds(3, 6, 6)
    assert len(set(given)) == 6


def test_another_seed_is_another_model(images):
    digests = set()
    for seed in (1, 2):
        run = Run.start(planned(images, reproducibility={"seed": seed}), images)
        digests |= {run.weights_digest(), run.advance().window.weights_digest}
    assert len(digests) == 4


def test_another_order_of_columns_or_another_directory_is_the_same_training(images, tmp_path):
    splits = {name: dict(reversed(images.columns(name).items())) for name in ("test", "val", "train")}
    write(tmp_path, splits, images.facts)
    moved = Dataset.open(tmp_path)
    plan = planned(images)
    assert Run.start(plan, moved).advance() == Run.start(plan, images).advance()


def test_draws_made_between_steps_change_nothing(images):
    plan = planned(images)
    quiet, disturbed = Run.start(plan, images), Run.start(plan, images)
    for _ in range(4):
        torch.rand(17)
        disturbed.advance()
        quiet.advance()
    assert quiet.weights_digest() == disturbed.weights_digest()


def test_one_last_bit_of_one_weight_shows_in_the_next_window(images):
    plan = planned(images)
    run = Run.start(plan, images)
    run.advance()
    tensors = run.tensors()
    weight = tensors["model.body.1.weight"]
    weight.view(torch.int32)[3, 3] ^= 1
    flipped = Run.resume(plan, images, tensors, run.step, control=run.control)
    assert flipped.advance().window.weights_digest != run.advance().window.weights_digest


def test_a_change_takes_effect_at_its_step_and_begins_a_segment(images):
    run = Run.start(planned(images), images)
    before = run.advance().window
    run.change(Change.read(run.step, {"learning_rate": 0.5, "grad_clip": 0.1}))
    after = run.advance().window
    assert (before.segment, after.segment) == (1, 2)
    assert after.learning_rate == before.learning_rate * 0.5
    with pytest.raises(ValueError, match="cannot be made"):
        run.change(Change(run.step + 1))


def test_a_rewind_is_a_resume_under_a_changed_plan(images):
    plan = planned(images)
    run = Run.start(plan, images)
    reports, kept = [], {}
    for _ in range(5):
        reports.append(run.advance())
        kept[run.step] = run.tensors()
    target = plan.rewind_target(run.step)
    control = Control.of(plan.request.early_stopping).after_all(evaluations(reports, target))
    changed = plan.after(Change.read(target, {"learning_rate": 0.1}))
    rewound = Run.resume(changed, images, kept[target], target, control=control)
    again = Run.resume(
        changed,
        images,
        kept[10],
        10,
        control=Control.of(plan.request.early_stopping).after_all(evaluations(reports, 10)),
    )
    first = rewound.advance()
    assert first.window.segment == 2
    replayed = windows(finished(again))
    assert replayed[1, 10] == windows(reports)[1, 10]
    assert replayed[2, target] == first.window


@pytest.fixture(scope="module")
def counted(images, tmp_path_factory):
    """The images with how often each class occurs, as the data manager counts."""
    splits = {name: images.columns(name) for name in ("train", "val", "test")}
    directory = tmp_path_factory.mktemp("counted")
    counts = tuple(np.bincount(splits["train"]["y"], minlength=4).tolist())
    write(directory, splits, dataclasses.replace(images.facts, counts=counts))
    return Dataset.open(directory)


@pytest.mark.parametrize(
    "changes",
    [{"weight_decay": 0.5}, {"dropout": 0.5}, {"class_weights": "balanced"}, {"skip_rows": [[1, 40]]}, {"warmup": 30}],
    ids=lambda changes: next(iter(changes)),
)
def test_a_lever_gives_the_same_bits_changed_in_place_resumed_and_run_through(counted, changes):
    plan = planned(counted, model={"architecture": "mlp", "hidden": [16], "dropout": 0.1}, resolved={"every_steps": 20})
    run = Run.start(plan, counted)
    while run.step < 20:
        run.advance()
    state, control = run.tensors(), run.control
    changed = plan.after(Change.read(20, changes))
    through, resumed = Run.start(changed, counted), Run.resume(changed, counted, state, 20, control=control)
    while through.step < 20:
        through.advance()
    run.change(Change.read(20, changes))
    ends = [finished(one) for one in (run, resumed, through)]
    assert ends[0] == ends[1] == ends[2]
    left_alone = Run.resume(plan, counted, state, 20, control=control).advance()
    assert left_alone.window.weights_digest != ends[0][0].window.weights_digest
    assert left_alone.window.segment != ends[0][0].window.segment


def test_classes_are_balanced_in_what_is_trained_on_and_not_in_what_is_judged(counted):
    plan = planned(counted)
    changed = plan.after(Change.read(0, {"class_weights": "balanced"}))
    weighted, judged = Run.start(changed, counted), Run.start(plan, counted)
    model = judged._setup.model
    assert weighted._judge.values(model) == judged._judge.values(model)
    assert weighted._setup.learner.request.loss.class_weights == "balanced"


def test_told_to_stop_it_says_how_it_stands_and_ends(images):
    run = Run.start(planned(images, resolved={"window": 7}), images)
    assert run.advance().step == 7
    run.change(Change.read(7, {"stop": True}))
    last = run.advance()
    assert (last.window, last.step, last.finished, last.stopped_early, last.checkpoint) == (
        None,
        7,
        True,
        False,
        "final",
    )
    assert last.evaluation.epoch == 1
    with pytest.raises(ValueError, match="ended"):
        run.advance()


def test_it_stops_early_when_the_control_metric_does_not_improve(images):
    rules = {"patience": 2, "min_delta": 10.0}
    run = Run.start(planned(images, early_stopping=rules), images)
    last = finished(run)[-1]
    assert (last.finished, last.stopped_early, last.checkpoint, last.evaluation.epoch) == (True, True, "final", 3)
    assert not last.evaluation.improved
    assert last.evaluation.best_step == 10


def test_checkpoints_stand_where_planned_where_best_and_at_the_end(images):
    reports = finished(Run.start(planned(images), images))
    for one in reports[:-1]:
        improved = one.evaluation is not None and one.evaluation.improved
        assert one.checkpoint == ("best" if improved else "planned" if one.step % 20 == 0 else "")
    assert reports[-1].checkpoint == "final"
    assert "best" in {one.checkpoint for one in reports}


def test_a_diverged_run_says_so_and_its_state_is_never_worth_keeping(images):
    wild = {
        "optimizer": {"type": "sgd", "learning_rate": 1000},
        "training": {"epochs": 12, "batch_size": 16, "grad_clip": None},
    }
    model = {"model": {"architecture": "mlp", "hidden": [16, 16, 16]}}
    reports = finished(Run.start(planned(images, **wild, **model), images))
    assert not reports[-1].window.finite
    assert reports[-1].checkpoint == ""
    losses = np.frombuffer(reports[-1].window.losses, "<f4")
    assert not np.isfinite(losses).all()


def test_a_window_holds_every_loss_and_evidence_of_every_layer(images):
    run = Run.start(planned(images, training={"epochs": 2, "batch_size": 16, "grad_clip": None}), images)
    window = run.advance().window
    assert (window.first, window.last, len(window.losses)) == (0, 10, 40)
    assert window.finite
    assert math.isfinite(window.grad_norm)
    hidden, answer = window.layers
    assert (hidden.name, answer.name) == ("body.1", "body.4")
    assert hidden.weight > hidden.update > 0
    assert 0 <= hidden.dead <= 1
    assert answer.dead is None
    assert math.isclose(math.hypot(hidden.gradient, answer.gradient), window.grad_norm, rel_tol=1e-6)


def test_looking_closely_changes_no_bit(images):
    often, seldom = planned(images, resolved={"window": 1}), planned(images, resolved={"window": 50})
    one, other = Run.start(often, images), Run.start(seldom, images)
    finished(one)
    finished(other)
    assert one.weights_digest() == other.weights_digest()


def test_staged_state_is_a_copy_and_buffers_are_used_again(images):
    run = Run.start(planned(images), images)
    staged = run.tensors()
    before = {name: one.clone() for name, one in staged.items()}
    run.advance()
    assert all(torch.equal(before[name], one) for name, one in staged.items())
    again = run.tensors(staged)
    assert all(again[name] is one for name, one in staged.items())
    assert not torch.equal(again["model.body.1.weight"], before["model.body.1.weight"])


def test_state_is_every_tensor_with_memory(images):
    names = set(Run.start(planned(images, model=CNN), images).tensors())
    assert {"model.body.1.running_mean", "model.body.1.num_batches_tracked", "optimizer.step.0"} <= names
    assert {"optimizer.first_moment.body.0.weight", "optimizer.second_moment.body.0.weight"} <= names


def test_a_rehearsal_tells_the_first_loss_and_moves_nothing(images):
    plan = planned(images)
    run = Run.start(plan, images)
    before = run.weights_digest()
    first = np.frombuffer(Run.start(plan, images).advance().window.losses, "<f4")[0]
    assert run.rehearse() == first
    assert run.weights_digest() == before


def test_numbers_are_learned_in_their_own_units(numbers):
    plan = planned(
        numbers,
        model={"architecture": "linear"},
        training={"epochs": 60, "batch_size": 16},
        optimizer={"type": "adam", "learning_rate": 0.02},
    )
    reports = finished(Run.start(plan, numbers))
    values = reports[-1].evaluation.values
    assert values["val_rmse"] < 2
    assert values["val_r2"] > 0.98
    assert values["val_loss"] < 0.02


def test_classes_are_learned(images):
    for model in ({"architecture": "mlp", "hidden": [32]}, CNN):
        sections = {"model": model, "optimizer": {"type": "adamw", "learning_rate": 0.01}}
        reports = finished(Run.start(planned(images, **sections, training={"epochs": 30, "batch_size": 16}), images))
        assert reports[-1].evaluation.values["val_accuracy"] > 0.8
