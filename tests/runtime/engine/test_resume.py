"""Options resume from every checkpoint to the same bits: a sample of sessions in which every two choices meet."""

from __future__ import annotations

import itertools
import random
import struct

import numpy as np
import pytest

from runtime.engine import state
from runtime.engine.checkpoint import load_model
from runtime.engine.dataset import Dataset, write
from runtime.engine.evaluate import Judge
from runtime.engine.facts import describe
from runtime.engine.learner import Learner
from runtime.engine.loop import Run
from runtime.engine.random_keys import uniform
from runtime.engine.report import Control
from tests.runtime.engine.plans import columns, planned

ROWS = {"train": 64, "val": 16}

SETUPS = {
    "mlp": ("images", {"architecture": "mlp", "hidden": [8], "dropout": 0.2}),
    "cnn": ("images", {"architecture": "cnn", "channels": [4], "dropout": 0.2}),
    "resnet": ("images", {"architecture": "resnet", "width": 2, "blocks": [1, 1]}),
    "attention": ("images", {"architecture": "transformer", "width": 4, "heads": 2, "layers": 1}),
    "tokens": ("tokens", {"architecture": "transformer", "width": 4, "heads": 2, "layers": 1}),
    "autoencoder": ("images", {"architecture": "autoencoder", "hidden": [8], "code": 3}),
}
TERMS = [{"name": "a", "loss": {"type": "cross_entropy"}}, {"name": "b", "loss": {"type": "focal"}}]
TWICE = {"type": "multi_task", "adaptive": True, "terms": TERMS}
ERRORS = [{"name": "a", "loss": {"type": "mse"}}, {"name": "b", "loss": {"type": "huber"}}]
LOSSES = {
    "images": [
        {"type": "cross_entropy", "label_smoothing": 0.1, "class_weights": "balanced"},
        {"type": "focal"},
        {"type": "bce"},
        {"type": "contrastive", "width": 4},
        {"type": "triplet", "width": 4},
        TWICE,
    ],
    "tokens": [{"type": "cross_entropy"}, {"type": "focal"}, TWICE],
    "autoencoder": [{"type": "mse"}, {"type": "huber"}, {**TWICE, "terms": ERRORS}],
}
PHASES = [{"schedule": {"type": "one_cycle"}}, {"schedule": {"type": "plateau", "patience": 0, "min_delta": 9}}]
AXES = {
    "setup": list(SETUPS),
    "loss": list(range(6)),
    "optimizer": [
        {"type": "sgd", "momentum": 0.9, "nesterov": True},
        {"type": "adam", "weight_decay": 0.1},
        {"type": "adamw", "groups": [{"parameters": ["*.bias"], "weight_decay": 0.0}]},
        {"type": "lion", "weight_decay": 0.1},
        {"type": "adafactor"},
    ],
    "gradients": [[], [{"type": "centralise"}], [{"type": "grokfast"}, {"type": "clip_value", "limit": 0.1}]],
    "schedule": [
        {"type": "cosine", "warmup_steps": 4},
        {"type": "cyclic", "up_steps": 3},
        {"type": "exponential", "factor": 0.99},
        {"type": "plateau", "patience": 0, "factor": 0.5, "min_delta": 9},
        {"type": "composite", "phases": PHASES},
    ],
    "sampler": ["uniform", "weighted", "balanced", "grouped"],
    "training": [
        {"grad_clip": None},
        {"accumulate": 2, "batch_size": 4},
        {"precision": "bf16", "recompute": True},
        {"ema": {"decay": 0.9}},
        {"ema": {"decay": 0.9, "use": False}, "accumulate": 2, "batch_size": 4, "recompute": True},
    ],
}


def covering():
    """Combinations in which every two choices of two axes meet: greedily, from a fixed seed."""
    drawn = random.Random(5)
    left = {
        ((one, a), (other, b))
        for one, other in itertools.combinations(AXES, 2)
        for a in range(len(AXES[one]))
        for b in range(len(AXES[other]))
    }

    def pairs(combination):
        return set(itertools.combinations(combination.items(), 2))

    while left:
        (first, second) = min(left)
        tries = []
        for _ in range(40):
            combination = {axis: drawn.randrange(len(values)) for axis, values in AXES.items()}
            combination.update([first, second])
            tries.append(combination)
        best = max(tries, key=lambda one: len(pairs(one) & left))
        left -= pairs(best)
        yield best


COMBINATIONS = list(covering())


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    """Few rows of both kinds, so that many sessions can be trained."""
    found = {}
    for kind, task in (("images", "classification"), ("tokens", "sequences")):
        splits = {}
        for at, (name, rows) in enumerate(ROWS.items(), 1):
            if kind == "images":
                splits[name] = columns(rows, 10 * at)
            else:
                x = (uniform(at, rows * 6) * 5).astype(np.int32).reshape(rows, 6)
                splits[name] = {"x": x, "y": x[:, 0].astype(np.int64) % 3}
        directory = tmp_path_factory.mktemp(kind)
        write(directory, splits, describe(splits, task, counted=True))
        found[kind] = Dataset.open(directory)
    return found


def exact(report):
    """A report in a form that is equal when its bits are: NaN equals itself."""
    evaluation = report.evaluation
    values = sorted((name, struct.pack("<d", value)) for name, value in evaluation.values.items()) if evaluation else ()
    window = report.window
    return report.step, repr(window), values, report.checkpoint, report.finished


def session(combination, datasets):
    chosen = {axis: AXES[axis][at] for axis, at in combination.items()}
    kind, model = SETUPS[chosen["setup"]]
    losses = LOSSES["autoencoder" if chosen["setup"] == "autoencoder" else kind]
    training = {"epochs": 3, "batch_size": 8, **chosen["training"]}
    sampler = {"type": chosen["sampler"]} | ({"repeats": [1, 0, 2, 3, 1]} if chosen["sampler"] == "weighted" else {})
    dataset = datasets[kind]
    plan = planned(
        dataset,
        resolved={"window": 6, "every_steps": 6},
        model=model,
        loss=losses[chosen["loss"] % len(losses)],
        optimizer=chosen["optimizer"],
        gradients=chosen["gradients"],
        schedule=chosen["schedule"],
        sampler=sampler,
        training=training,
        early_stopping={"enabled": True, "patience": 3},
    )
    return plan, dataset


@pytest.mark.parametrize("combination", COMBINATIONS, ids=lambda one: "-".join(map(str, one.values())))
def test_it_resumes_from_every_checkpoint_and_is_judged_alike_elsewhere(combination, datasets):
    plan, dataset = session(combination, datasets)
    run = Run.start(plan, dataset)
    reports, kept, controls = [], {0: run.tensors()}, {0: run.control}
    while not run.finished:
        reports.append(run.advance())
        kept[run.step], controls[run.step] = run.tensors(), run.control
    values = [one.evaluation.values[one.evaluation.metric] for one in reports if one.evaluation]
    steps = [one.step for one in reports if one.evaluation]
    for start, tensors in list(kept.items())[:-1]:
        seen = [(step, value) for step, value in zip(steps, values, strict=True) if step <= start]
        control = Control.of(plan.request.early_stopping).after_all(seen)
        assert control == controls[start]
        resumed = Run.resume(plan, dataset, tensors, start, control=control)
        report = resumed.advance()
        (recorded,) = (one for one in reports if one.step == report.step)
        assert exact(report) == exact(recorded)
        assert state.first_difference(resumed.tensors(), kept[report.step]) is None
    model = load_model(plan.request, dataset.facts, run.tensors())
    judged = Judge(Learner(plan.request, dataset.facts), plan.resolved, dataset).values(model)
    assert judged == reports[-1].evaluation.values


def test_the_sample_has_every_pair_and_stays_small():
    assert 30 <= len(COMBINATIONS) <= 60
