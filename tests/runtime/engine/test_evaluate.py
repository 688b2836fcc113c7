"""The control metric is a function of the model's bits: whoever judges the same weights finds the same values."""

from __future__ import annotations

import pytest
import torch

from contracts.errors import NotFound
from runtime.engine.checkpoint import load_model
from runtime.engine.evaluate import Judge
from runtime.engine.learner import Learner
from runtime.engine.loop import Run
from tests.runtime.engine.plans import finished, planned


def judge(plan, dataset, split="val"):
    return Judge(Learner(plan.request, dataset.facts), plan.resolved, dataset, split)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_validator_reproduces_the_control_metric_bit_for_bit(images, precision):
    plan = planned(images, training={"epochs": 3, "batch_size": 16, "precision": precision})
    run = Run.start(plan, images)
    for report in finished(run):
        if report.evaluation:
            seen = report.evaluation.values
    model = load_model(plan.request, images.facts, run.tensors())
    assert judge(plan, images).values(model) == seen
    assert set(seen) == {"val_loss", "val_accuracy", "val_f1_macro"}


def test_other_splits_are_judged_under_their_own_names(images):
    plan = planned(images)
    model = Learner(plan.request, images.facts).build()
    assert set(judge(plan, images, "test").values(model)) == {"test_loss", "test_accuracy", "test_f1_macro"}
    with pytest.raises(NotFound, match="holdout"):
        judge(plan, images, "holdout")


def test_judging_leaves_the_model_as_it_was(images):
    plan = planned(images, model={"architecture": "cnn", "channels": [4]})
    model = Learner(plan.request, images.facts).build().train()
    model.body[1].eval()
    before = {name: one.clone() for name, one in model.state_dict().items()}
    judge(plan, images).values(model)
    assert model.training
    assert not model.body[1].training
    assert all(torch.equal(before[name], one) for name, one in model.state_dict().items())


def test_answers_come_in_the_order_of_the_rows(images):
    plan = planned(images)
    model = Learner(plan.request, images.facts).build().eval()
    answers = judge(plan, images).answers(model)
    x = torch.from_numpy(images.columns("val")["x"])
    assert answers.shape == (40, 4)
    assert torch.allclose(answers, model(x).detach(), atol=1e-5)
