"""float16 is skipped where it overflows, and its scale is state."""

from __future__ import annotations

from dataclasses import replace

import torch

from runtime.engine import step
from runtime.engine.loop import Run
from runtime.engine.passes import FIRST_SCALE, ScaledPrecision
from runtime.engine.state import copied
from runtime.engine.step import TrainingSetup
from tests.runtime.engine.plans import finished, planned


def test_half_precision_resumes_to_the_same_bits(images):
    plan = planned(images, training={"epochs": 4, "batch_size": 16})
    plan = replace(plan, resolved=replace(plan.resolved, precision="fp16"))
    run = Run.start(plan, images)
    first = run.advance()
    kept = run.tensors()
    assert {"precision.scale", "precision.grown"} <= set(kept)
    rest = finished(run)
    resumed = Run.resume(
        plan,
        images,
        kept,
        first.step,
        control=Run.start(plan, images).control.after_all(
            [(first.step, first.evaluation.values["val_loss"])] if first.evaluation else []
        ),
    )
    assert finished(resumed) == rest
    assert rest[-1].evaluation.values["val_loss"] < first.evaluation.values["val_loss"]


def test_an_overflow_skips_the_attempt_and_halves_the_scale():
    half = ScaledPrecision("fp16", "cpu")
    gradient = torch.tensor([1.0, float("inf")])
    assert not half.settle([gradient])
    assert half.tensors()["precision.scale"] == FIRST_SCALE / 2
    assert half.settle([torch.tensor([FIRST_SCALE])])


def test_gradients_come_back_in_their_own_size():
    half = ScaledPrecision("fp16", "cpu")
    weight = torch.nn.Parameter(torch.tensor(3.0))
    half.backward(weight * 2)
    gradients = [weight.grad]
    assert half.settle(gradients)
    assert gradients[0] == 2.0


def test_an_attempt_that_overflows_moves_nothing_but_the_scale(images):
    """Weights, their average, the memory of filters and optimizer are what they were, and training goes on."""
    training = {"epochs": 4, "batch_size": 16, "ema": {"decay": 0.9}}
    plan = planned(images, training=training, gradients=[{"type": "grokfast"}])
    plan = replace(plan, resolved=replace(plan.resolved, precision="fp16"))
    setup = TrainingSetup.of(plan, images)

    def attempted(number):
        batches = setup.feed.batches(setup.sampler.take(16 * number, 16), 16, 16 * number)
        return step.attempt(setup, plan.at(number), [(number, batches[0])], look=False)

    attempted(0)
    before = copied(setup.tensors())
    setup.number_format.tensors()["precision.scale"].fill_(2.0**100)
    felt = attempted(1)
    after = setup.tensors()
    assert {name for name in before if not torch.equal(before[name], after[name])} == {
        "precision.scale",
        "precision.grown",
    }
    assert (after["precision.scale"], after["precision.grown"]) == (2.0**99, 0)
    assert torch.isfinite(felt.loss)
    setup.number_format.tensors()["precision.scale"].fill_(FIRST_SCALE)
    attempted(2)
    moved = {name.partition(".")[0] for name in before if not torch.equal(before[name], setup.tensors()[name])}
    assert moved == {"model", "ema", "gradients", "optimizer"}
    assert all(torch.isfinite(one).all() for one in setup.tensors().values())
