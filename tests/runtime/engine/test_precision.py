"""float16 is skipped where it overflows, and its scale is state."""

from __future__ import annotations

from dataclasses import replace

import torch

from runtime.engine.loop import Run
from runtime.engine.precision import FIRST_SCALE, Half
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
    half = Half("fp16", "cpu")
    gradient = torch.tensor([1.0, float("inf")])
    assert not half.settle([gradient])
    assert half.tensors()["precision.scale"] == FIRST_SCALE / 2
    assert half.settle([torch.tensor([FIRST_SCALE])])


def test_gradients_come_back_in_their_own_size():
    half = Half("fp16", "cpu")
    weight = torch.nn.Parameter(torch.tensor(3.0))
    half.backward(weight * 2)
    gradients = [weight.grad]
    assert half.settle(gradients)
    assert gradients[0] == 2.0
