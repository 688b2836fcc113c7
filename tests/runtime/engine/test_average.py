"""The average of weights is state, and stands in for the weights wherever a model is judged."""

from __future__ import annotations

import pytest
import torch

from contracts.request.training import Ema
from runtime.engine.checkpoint import load_model
from runtime.engine.evaluate import Judge
from runtime.engine.learner import Learner
from runtime.engine.loop import Run
from runtime.engine.update import Average
from tests.runtime.engine.plans import finished, planned

CNN = {"architecture": "cnn", "channels": [4, 8], "dropout": 0.2}


def averaged(images, **ema):
    training = {"epochs": 6, "batch_size": 16, "ema": {"decay": 0.9, **ema}}
    return planned(images, model=CNN, training=training, early_stopping={"enabled": False})


def test_it_follows_the_weights_slower_and_slower(images):
    plan = averaged(images)
    assert [round(plan.at(step).averaging, 4) for step in (0, 1, 9, 79, 80, 500)] == [
        0.9, 0.8182, 0.4737, 0.1011, 0.1, 0.1
    ]  # fmt: skip
    model = torch.nn.Linear(3, 2)
    average = Average(model, Ema(decay=0.9))
    mean = model.weight.detach().clone()
    for step in range(5):
        with torch.no_grad():
            model.weight.add_(1.0)
        share = plan.at(step).averaging
        average.follow(share)
        mean += share * (model.weight.detach() - mean)
    assert torch.allclose(average.tensors()["ema.weight"], mean, atol=1e-6)


def test_without_a_decay_there_is_no_average(images):
    plan = planned(images)
    assert not [name for name in Run.start(plan, images).tensors() if name.startswith("ema.")]


def test_it_stands_in_and_steps_back(images):
    model = torch.nn.Linear(3, 2)
    average = Average(model, Ema(decay=0.5))
    mean = model.weight.detach().clone()
    with torch.no_grad():
        model.weight.zero_()
    with average.standing_in():
        assert torch.equal(model.weight, mean)
    assert not model.weight.any()
    with Average(model, Ema(decay=0.5, use=False)).standing_in():
        assert not model.weight.any()


def test_it_steps_back_when_what_it_stands_in_for_raises():
    model = torch.nn.Linear(3, 2)
    average = Average(model, Ema(decay=0.5))
    mean = model.weight.detach().clone()
    with torch.no_grad():
        model.weight.zero_()
    with pytest.raises(ValueError, match="no metric"), average.standing_in():
        raise ValueError("no metric")
    assert not model.weight.any()
    assert torch.equal(average.tensors()["ema.weight"], mean)


def test_an_averaged_training_resumes_to_the_same_bits(images):
    run = Run.start(averaged(images), images)
    run.advance()
    kept, step = run.tensors(), run.step
    assert kept["ema.body.0.weight"].shape == kept["model.body.0.weight"].shape
    rest = finished(run)
    resumed = Run.resume(averaged(images), images, kept, step)
    assert [one.window for one in finished(resumed)] == [one.window for one in rest]


@pytest.mark.parametrize("use", [True, False])
def test_whoever_loads_the_checkpoint_judges_as_the_training_did(images, use):
    plan = averaged(images, use=use)
    run = Run.start(plan, images)
    last = finished(run)[-1].evaluation
    judge = Judge(Learner(plan.request, images.facts), plan.resolved, images)
    assert judge.values(load_model(plan.request, images.facts, run.tensors())) == last.values


def test_averaging_does_not_change_what_is_trained(images):
    plain = planned(images, model=CNN, training={"epochs": 6, "batch_size": 16}, early_stopping={"enabled": False})
    one, other = Run.start(averaged(images), images), Run.start(plain, images)
    judged, plainly = finished(one)[-1].evaluation, finished(other)[-1].evaluation
    assert one.weights_digest() == other.weights_digest()
    assert judged.values != plainly.values
