"""Filters change gradients before they are clipped, in order, and what they remember is state."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.request.optimizer import Centralise, ClipValue, Grokfast
from runtime.engine.loop import Run
from runtime.engine.parts.gradients import clip, norms_of
from runtime.engine.update import Filters
from tests.runtime.engine.plans import finished, planned


def parameters(seed=1):
    torch.manual_seed(seed)
    made = [torch.nn.Parameter(torch.zeros(shape)) for shape in ((3, 4), (2, 3, 2, 2), (5,), ())]
    for one in made:
        one.grad = torch.randn_like(one)
    return made


def filtered(held, *chosen):
    filters = Filters(chosen, held, [str(at) for at in range(len(held))])
    there = [at for at, one in enumerate(held) if one.grad is not None]
    filters.apply([held[at].grad for at in there], there)
    return filters


@given(st.floats(0.01, 100), st.integers(1, 5))
@settings(max_examples=20, deadline=None)
def test_clipping_by_norm_is_exactly_torchs_own(limit, seed):
    held = parameters(seed)
    gradients = [one.grad.clone() for one in held]
    _, norm = norms_of(gradients)
    clip(gradients, norm, limit)
    assert torch.nn.utils.clip_grad_norm_(held, limit) == norm
    assert all(torch.equal(mine, one.grad) for mine, one in zip(gradients, held, strict=True))


@given(st.floats(0.01, 3), st.integers(1, 5))
@settings(max_examples=20, deadline=None)
def test_clipping_by_value_is_exactly_torchs_own(limit, seed):
    mine, its = parameters(seed), parameters(seed)
    filtered(mine, ClipValue(type="clip_value", limit=limit))
    torch.nn.utils.clip_grad_value_(its, limit)
    assert all(torch.equal(one.grad, other.grad) for one, other in zip(mine, its, strict=True))


def test_centralised_gradients_have_no_mean_over_a_units_weights_and_vectors_stay():
    held, before = parameters(), [one.grad.clone() for one in parameters()]
    filtered(held, Centralise(type="centralise"))
    matrix, kernel, vector, scalar = (one.grad for one in held)
    assert torch.allclose(matrix, before[0] - before[0].mean(1, keepdim=True))
    assert torch.allclose(kernel.mean((1, 2, 3)), torch.zeros(2), atol=1e-6)
    assert torch.equal(vector, before[2])
    assert torch.equal(scalar, before[3])


def test_grokfast_adds_the_slow_part_and_begins_with_the_first_gradient():
    held = parameters()
    chosen = Grokfast(type="grokfast", memory=0.75, strength=2.0)
    filters = Filters([chosen], held, list("abcd"))
    slow = None
    for _ in range(4):
        for one in held:
            one.grad = torch.randn_like(one)
        raw = held[0].grad.clone()
        slow = raw if slow is None else 0.75 * slow + 0.25 * raw
        filters.apply([one.grad for one in held], range(len(held)))
        assert torch.allclose(held[0].grad, raw + 2 * slow, atol=1e-6)
    assert torch.allclose(filters.tensors()["gradients.0.slow.a"], slow, atol=1e-6)


def test_filters_work_in_order():
    one, other = parameters(), parameters()
    central, cut = Centralise(type="centralise"), ClipValue(type="clip_value", limit=0.1)
    filtered(one, central, cut)
    filtered(other, cut, central)
    assert one[0].grad.abs().max() == pytest.approx(0.1)
    assert not torch.equal(one[0].grad, other[0].grad)


def test_memory_of_a_parameter_without_gradient_stays_as_it_is():
    held = parameters()
    held[1].grad = None
    remembered = filtered(held, ClipValue(type="clip_value", limit=1), Grokfast(type="grokfast")).tensors()
    assert not remembered["gradients.1.slow.1"].any()
    assert remembered["gradients.1.slow.2"].any()


FILTERS = [{"type": "centralise"}, {"type": "clip_value", "limit": 0.01}, {"type": "grokfast"}]


def test_a_filtered_training_resumes_to_the_same_bits(images):
    plan = planned(images, gradients=FILTERS, early_stopping={"enabled": False})
    run = Run.start(plan, images)
    run.advance()
    kept = run.tensors()
    assert {"gradients.2.slow.body.1.weight", "gradients.2.begun.0"} <= kept.keys()
    finished(run)
    resumed = Run.resume(plan, images, kept, 10)
    finished(resumed)
    assert resumed.weights_digest() == run.weights_digest()
    plain = Run.start(planned(images, early_stopping={"enabled": False}), images)
    finished(plain)
    assert plain.weights_digest() != run.weights_digest()
