"""User code that would not survive a restart is found by repeating it, named by tensor, with the cure."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from contracts.errors import UserCodeFailed
from runtime.engine import loop, workload
from runtime.engine.loop import Run
from runtime.engine.report import StepRecord, StepTrace, compare_traces
from runtime.engine.workload import Memory, OptimizerPart, Workload
from runtime.jobs.codec import NotOfType, codec_of
from tests.runtime.engine.plans import planned


class Sound(Workload):
    """Draws and counts as it should."""

    def build(self, o, facts):
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Dropout(0.2), nn.ReLU(), nn.Linear(8, facts.classes))

    def loss(self, model, batch):
        loss = nn.functional.cross_entropy(model(batch["x"]), batch["y"])
        return {"loss": loss, "drawn": torch.tensor(np.random.rand())}  # noqa: NPY002


class OwnGenerator(Sound):
    def __init__(self):
        self.rng = np.random.default_rng(7)

    def augment(self, sample, draw):
        return {**sample, "x": sample["x"] + self.rng.normal(0, 0.1)}


class HiddenCounter(Sound):
    def build(self, o, facts):
        model = super().build(o, facts)
        model.seen = 0
        return model

    def loss(self, model, batch):
        model.seen += 1
        found = super().loss(model, batch)
        return {**found, "loss": found["loss"] / (1 + 0.01 * model.seen)}


class CachedTensor(Sound):
    """Remembers the last batch in a tensor that is no buffer."""

    def build(self, o, facts):
        model = super().build(o, facts)
        model.last = torch.zeros(64)
        return model

    def loss(self, model, batch):
        found = super().loss(model, {**batch, "x": batch["x"] + model.last.reshape(1, 8, 8) * 0.01})
        model.last = batch["x"].mean(0).reshape(64)
        return found


class LambdaTransform(Sound):
    """A lambda that closes over a generator: not even an attribute of a simple kind."""

    def __init__(self):
        rng = torch.Generator().manual_seed(3)
        self.transform = lambda x: x * torch.rand((), generator=rng).item()

    def augment(self, sample, draw):
        return {**sample, "x": self.transform(sample["x"])}


class ForgetfulOptimizer(Sound):
    """Its momentum lives in a dictionary."""

    def __init__(self):
        self.sums = {}

    def optimizer(self, o):
        return OptimizerPart(lambda options, parameters: Memory(), self._move)

    def _move(self, options, parameters, gradients, memory, rate):
        for at, (parameter, gradient) in enumerate(zip(parameters, gradients, strict=True)):
            self.sums[at] = self.sums.get(at, 0) * 0.9 + gradient.clone()
            parameter.sub_(rate * self.sums[at])


class MoodyJudge(Sound):
    """Judges otherwise each time."""

    calls = 0

    def metrics(self):
        return {"mood": self._mood}

    def _mood(self, answers, batch):
        MoodyJudge.calls += 1
        return float(MoodyJudge.calls)


def audited(kind, images, **sections):
    """The difference between the second window (and what is evaluated in it) and its repetition."""
    workload.register("audited", kind)
    stopping = {"early_stopping": {"enabled": False}}
    plan = planned(images, model={"architecture": "workload", "workload": "audited"}, **{**stopping, **sections})
    run = Run.start(plan, images)
    run.advance()
    staged, control, first = run.tensors(), run.control, run.step
    reports = [run.advance(), run.advance()]
    lived = loop.step_trace(first, reports, run)
    again = loop.repeat_steps(Run.resume(plan, images, staged, first, control=control), run.step)
    codec = codec_of(StepTrace)
    arrived = codec.decode(json.loads(json.dumps(codec.encode(lived))))
    assert arrived == replace(lived, told=tuple(lived.told))
    return compare_traces(arrived, again)


def test_sound_code_repeats_itself(images):
    assert audited(Sound, images) is None


@pytest.mark.parametrize(
    ("kind", "suspect"),
    [
        (OwnGenerator, "workload.rng (a generator of its own)"),
        (HiddenCounter, "model.seen ("),
        (CachedTensor, "model.last (a tensor that is no buffer"),
        (LambdaTransform, ""),
    ],
)
def test_what_hangs_on_more_than_the_state_is_found_at_its_first_step(images, kind, suspect):
    found = audited(kind, images)
    assert (found.step, found.what) == (11, "the loss of step 11")
    assert found.tensor.startswith(("model.", "optimizer."))
    assert suspect in " ".join(found.suspects)
    error = found.error()
    assert isinstance(error, UserCodeFailed)
    assert found.tensor in error.message
    assert suspect in error.cure
    assert "register_buffer" in error.cure


def test_a_scalar_that_differs_is_named_though_no_bit_of_the_weights_does(images):
    class Clock(Sound):
        ticks = 0

        def loss(self, model, batch):
            Clock.ticks += 1
            return {**super().loss(model, batch), "tick": torch.tensor(float(Clock.ticks))}

    found = audited(Clock, images)
    assert (found.what, found.tensor) == ("tick of step 11", "")


def test_an_optimizer_that_forgets_shows_after_its_first_move(images):
    found = audited(ForgetfulOptimizer, images, optimizer={"type": "own", "learning_rate": 0.01})
    assert (found.what, found.tensor[:6]) == ("the loss of step 12", "model.")


def test_an_evaluation_that_differs_is_named(images):
    found = audited(MoodyJudge, images, early_stopping={"enabled": False, "metric": "val_mood"})
    assert found.what.startswith("val_mood of the evaluation at step ")
    assert found.tensor == ""


def test_attributes_are_the_same_words_in_every_process():
    code = (
        "import torch, numpy as np;"
        "from torch import nn;"
        "from runtime.engine.evaluate import hidden;"
        "model = nn.Linear(1, 1); model.note = {'a': [1, 2.5]}; model.kept = np.arange(3); model.other = torch.ones(2);"
        "model.odd = object(); model.rng = torch.Generator();"
        "print(sorted(hidden(object.__new__(type('W', (), {})), model).items()))"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", code], cwd=Path(__file__).parents[3], capture_output=True, check=True, text=True
        ).stdout
        for _ in range(2)
    }
    (words,) = said
    assert "model.note" in words
    assert "model.rng" in words
    assert "model.odd" not in words
    assert "in_features" in words


def test_what_only_one_of_two_processes_tells_of_is_a_difference():
    told = [StepRecord(1, "the loss of step 1", "3f800000"), StepRecord(2, "the loss of step 2", "3f000000")]
    whole, short = StepTrace(0, told, {"model.w": "0"}, {}), StepTrace(0, told[:1], {"model.w": "0"}, {})
    assert compare_traces(whole, whole) is None
    for found in (compare_traces(whole, short), compare_traces(short, whole)):
        assert found is not None
        assert (found.step, found.what, found.tensor) == (2, "the loss of step 2", "")


@pytest.mark.parametrize("raw", [{}, {"first": 0}, {"first": 0, "told": [[1]], "leaves": {}, "hidden": {}}])
def test_what_is_no_trace_is_not_taken_for_one(raw):
    with pytest.raises(NotOfType):
        codec_of(StepTrace).decode(raw)
