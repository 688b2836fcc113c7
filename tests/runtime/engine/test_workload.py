"""A user's own model trains like a built-in one: the same bits after any resume."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import BaseModel
from torch import nn

from contracts.errors import InvalidRequest, NotFound, UserCodeFailed
from runtime.engine import workload
from runtime.engine.loop import Run
from runtime.engine.report import Control
from runtime.engine.workload import Group, Workload
from tests.runtime.engine.plans import finished, planned


class Noisy(Workload):
    """Draws from every generator, ties weights, keeps a buffer that torch would not save, augments, records scalars."""

    class Options(BaseModel):
        width: int = 8

    def build(self, o, facts):
        return Net(o.width, facts)

    def loss(self, model, batch):
        answers = model(batch["x"])
        loss = nn.functional.cross_entropy(answers, batch["y"])
        noise = random.random() + np.random.rand()  # noqa: NPY002
        return {
            "loss": loss * (1 + 0.01 * noise),
            "noise": torch.tensor(noise),
            "right": answers.argmax(1).eq(batch["y"]).float().mean(),
        }

    def augment(self, sample, draw):
        shifted = np.roll(sample["x"], draw.below(3) - 1, axis=2) * np.float32(draw.uniform(0.9, 1.1))
        return {**sample, "x": shifted}

    def metrics(self):
        return {"agreement": lambda answers, batch: float((answers.argmax(1) == batch["y"]).double().mean())}

    def param_groups(self, model):
        return [Group([model.first.weight], rate=0.5), Group([model.first.bias, model.last.weight], weight_decay=0.0)]


class Net(nn.Module):
    def __init__(self, width, facts):
        super().__init__()
        self.first = nn.Linear(64, width)
        self.last = nn.Linear(width, facts.classes, bias=False)
        self.register_buffer("seen", torch.zeros(()), persistent=False)

    def forward(self, x):
        if self.training:
            self.seen = self.seen + 1
        hidden = nn.functional.dropout(self.first(x.flatten(1)).relu(), 0.2, self.training)
        return self.last(hidden + torch.randn_like(hidden) * 0.01 * self.training) + self.seen * 1e-3


@pytest.fixture
def noisy(images):
    workload.register("noisy", Noisy)
    model = {"architecture": "workload", "workload": "noisy", "options": {"width": 12}}
    return planned(images, model=model, early_stopping={"metric": "val_agreement"})


def test_it_resumes_to_the_same_bits_whatever_it_draws_from(noisy, images):
    run = Run.start(noisy, images)
    kept, reports = {}, []
    while not run.finished:
        reports.append(run.advance())
        kept[run.step] = run.tensors()
    for step in (10, 20, 50):
        seen = [
            (one.step, one.evaluation.values["val_agreement"]) for one in reports if one.evaluation and one.step <= step
        ]
        random.seed(step)
        resumed = Run.resume(
            noisy, images, kept[step], step, control=Control.of(noisy.request.early_stopping).after_all(seen)
        )
        assert finished(resumed) == [one for one in reports if one.step > step]
        assert resumed.weights_digest() == run.weights_digest()


def test_its_scalars_are_recorded_and_its_metrics_steer(noisy, images):
    report = Run.start(noisy, images).advance()
    assert set(report.window.scalars) == {"noise", "right"}
    assert len(report.window.scalars["noise"]) == len(report.window.losses)
    assert set(report.evaluation.values) == {"val_loss", "val_agreement"}
    assert report.evaluation.metric == "val_agreement"


def test_scalars_are_means_over_accumulated_parts(noisy, images):
    accumulating = replace(noisy, resolved=replace(noisy.resolved, batch=8, accumulate=2))
    right = np.frombuffer(Run.start(accumulating, images).advance().window.scalars["right"], "<f4")
    assert set(np.unique(right * 16 % 1)) == {0.0}


def test_hidden_buffers_are_state(noisy, images):
    run = Run.start(noisy, images)
    run.advance()
    assert run.tensors()["model.seen"] == 10


def test_a_workload_that_is_not_registered_is_named(images):
    with pytest.raises(NotFound, match="'unknown'"):
        planned(images, model={"architecture": "workload", "workload": "unknown"})


def test_wrong_options_are_named_by_path(images):
    workload.register("noisy", Noisy)
    with pytest.raises(InvalidRequest) as caught:
        planned(images, model={"architecture": "workload", "workload": "noisy", "options": {"width": "x"}})
    assert caught.value.problems[0].path == "model.options.width"


def test_a_loss_that_is_missing_or_hangs_on_nothing_is_said(noisy, images):
    class Nameless(Noisy):
        def loss(self, model, batch):
            return {"los": super().loss(model, batch)["loss"]}

    class Detached(Noisy):
        def loss(self, model, batch):
            return torch.zeros((), requires_grad=True)

    for wrong, said in ((Nameless, "missing"), (Detached, "no parameter")):
        workload.register("noisy", wrong)
        with pytest.raises(UserCodeFailed, match=said):
            Run.start(noisy, images).advance()


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        (lambda loss: None, "returned None, which is no tensor"),
        (lambda loss: float(loss.detach().mean()), "which is no tensor"),
        (lambda loss: {"loss": None}, "returned None as 'loss', which is no tensor"),
        (lambda loss: {"loss": loss.mean(), "right": 0.5}, "returned 0.5 as 'right', which is no tensor"),
        (lambda loss: loss, r"a tensor of the shape \[16\], not one number"),
        (lambda loss: {"loss": loss}, r"a tensor of the shape \[16\], not one number"),
    ],
)
def test_a_loss_that_is_no_number_is_said_with_what_to_return(noisy, images, returned, said):
    class Wrong(Noisy):
        def loss(self, model, batch):
            return returned(nn.functional.cross_entropy(model(batch["x"]), batch["y"], reduction="none"))

    workload.register("noisy", Wrong)
    with pytest.raises(UserCodeFailed, match=said) as caught:
        Run.start(noisy, images).advance()
    assert caught.value.cure.startswith("Return the")


def test_a_loss_that_is_no_number_where_it_is_only_judged_is_said_too(noisy, images):
    class Late(Noisy):
        def loss(self, model, batch):
            return super().loss(model, batch) if model.training else None

    workload.register("noisy", Late)
    with pytest.raises(UserCodeFailed, match="returned None, which is no tensor"):
        finished(Run.start(noisy, images))


def test_groups_that_share_a_parameter_are_refused(noisy, images):
    class Sharing(Noisy):
        def param_groups(self, model):
            return [Group([model.first.weight]), Group([model.first.weight])]

    workload.register("noisy", Sharing)
    with pytest.raises(UserCodeFailed, match="share"):
        Run.start(noisy, images)
