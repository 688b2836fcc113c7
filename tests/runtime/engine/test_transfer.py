"""A model begins with given weights and keeps frozen ones; nothing is left out that the request does not name."""

from __future__ import annotations

import pytest
import torch

from contracts.errors import InvalidRequest, NotVerified
from contracts.request import read_request
from runtime.engine import state
from runtime.engine.loop import Run
from runtime.engine.plan import Plan
from runtime.engine.resolve import resolve
from tests.runtime.engine.plans import finished, planned

CNN = {"architecture": "cnn", "channels": [4, 8]}
RAW = {"data": {"source": "csv", "path": "x.csv", "target": "y"}, "training": {"epochs": 3, "batch_size": 16}}


@pytest.fixture(scope="module")
def taught(images):
    run = Run.start(planned(images, model=CNN), images)
    run.advance()
    return run.tensors()


def begun(images, tensors, **model):
    request = read_request({**RAW, "model": {**CNN, "init": "taught.safetensors", **model}})
    plan = Plan(request, resolve(request, images.facts, cores=1, initial=tensors))
    return plan, Run.start(plan, images, initial=tensors)


def refused(images, tensors, **model):
    with pytest.raises(InvalidRequest) as caught:
        begun(images, tensors, **model)
    return {problem.path: problem for problem in caught.value.problems}


def plain(tensors):
    return {name.removeprefix("model."): one for name, one in tensors.items() if name.startswith("model.")}


def test_it_begins_with_the_weights_of_a_checkpoint_or_of_an_export(images, taught):
    for given in (taught, plain(taught)):
        plan, run = begun(images, given)
        assert state.first_difference(plain(run.tensors()), plain(taught)) is None
        assert plan.resolved.initial == state.root(plain(taught))


def test_other_weights_than_those_it_was_claimed_with_are_refused(images, taught):
    plan, _ = begun(images, taught)
    other = {**taught, "model.body.0.weight": taught["model.body.0.weight"] + 1}
    for wrong in (other, None):
        with pytest.raises(NotVerified, match="begins with"):
            Run.start(plan, images, initial=wrong)


def test_a_request_and_what_is_handed_in_must_agree(images, taught):
    with pytest.raises(InvalidRequest, match="handed in"):
        planned(images, model={**CNN, "init": "taught.safetensors"})
    with pytest.raises(InvalidRequest, match="handed in"):
        resolve(planned(images, model=CNN).request, images.facts, cores=1, initial=taught)


def test_what_does_not_fit_is_named_and_may_be_left_fresh(images, taught):
    fewer = {name: one for name, one in plain(taught).items() if name != "body.1.running_mean"}
    assert "'body.1.running_mean' is not in the file" in refused(images, fewer)["model.init"].message
    other = {**plain(taught), "body.12.weight": torch.zeros(7, 8), "head": torch.zeros(1)}
    with pytest.raises(InvalidRequest) as caught:
        begun(images, other)
    said = " ".join(problem.message for problem in caught.value.problems)
    assert "'head' is not in the model" in said
    assert "'body.12.weight' has shape (7, 8)" in said
    _, run = begun(images, other, fresh=["head", "body.12.*"])
    found, drawn = plain(run.tensors()), plain(Run.start(planned(images, model=CNN), images).tensors())
    assert torch.equal(found["body.12.weight"], drawn["body.12.weight"])
    assert torch.equal(found["body.0.weight"], plain(taught)["body.0.weight"])


def test_frozen_weights_and_statistics_stay_and_the_rest_learns(images, taught):
    plan, run = begun(images, taught, freeze=["body.0.*", "body.1.*"])
    before = run.tensors()
    reports = finished(run)
    after = run.tensors()
    moved = {name for name in plain(after) if not torch.equal(after[f"model.{name}"], before[f"model.{name}"])}
    assert not [name for name in moved if name.startswith(("body.0.", "body.1."))]
    assert {"body.4.weight", "body.5.running_mean", "body.12.weight"} <= moved
    assert not [name for name in after if name.startswith("optimizer") and ".body.0." in name]
    assert {layer.name for layer in reports[0].window.layers} == {"body.4", "body.5", "body.9", "body.12"}
    resumed = Run.resume(plan, images, before, 0)
    assert finished(resumed) == reports


@pytest.mark.parametrize(
    ("model", "path"),
    [
        ({"freeze": ["body.99.*"]}, "model.freeze.0"),
        ({"freeze": ["*"]}, "model.freeze"),
        ({"fresh": ["nothing"]}, "model.fresh.0"),
    ],
)
def test_patterns_that_fit_nothing_or_everything_are_refused(images, taught, model, path):
    assert refused(images, taught, **model)[path].cure
