"""Recorded bits: what our own arithmetic gave, on every machine or on one with the same fingerprint.

A failure means that `ENGINE_BITS` must be raised; goldens are added to, never edited.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from runtime.engine import workload
from runtime.engine.dataset import Dataset, write
from runtime.engine.environment import sealed
from runtime.engine.facts import describe
from runtime.engine.loop import Run
from runtime.engine.random_keys import uniform
from runtime.engine.workload import Workload
from tests.runtime.engine.plans import ROWS, finished, planned

HERE = Path(__file__).parent
GOLDENS = json.loads((HERE / "goldens.json").read_text())


@pytest.fixture(scope="module")
def measured():
    base = {"PATH": os.environ["PATH"], "PYTHONPATH": str(HERE.parents[2])}
    environment = sealed(base, profile="exact", threads=1)
    command = [sys.executable, "-m", "tests.runtime.engine.golden"]
    return json.loads(subprocess.run(command, env=environment, capture_output=True, check=True).stdout)


def test_initial_weights_order_and_dataset_root_are_the_same_on_every_machine(measured):
    golden = GOLDENS["everywhere"][str(measured["engine_bits"])]
    assert measured["root"] == golden["root"]
    assert measured["started"] == golden["started"]
    assert {one for _, one in measured["trained"].values()} == {golden["index_digest"]}


def test_trained_weights_are_those_recorded_for_this_fingerprint(measured):
    known = GOLDENS["by_fingerprint"].get(measured["fingerprint"])
    if known is None:
        pytest.skip("no golden was recorded on a machine that rounds like this one")
    assert {name: digest for name, (digest, _) in measured["trained"].items()} == known[str(measured["engine_bits"])]


def test_further_parts_begin_and_draw_the_same_on_every_machine(measured):
    golden = GOLDENS["more_everywhere"][str(measured["engine_bits"])]
    assert {name: found[:2] for name, found in measured["more"].items()} == golden


def test_further_parts_end_in_the_state_recorded_for_this_fingerprint(measured):
    known = GOLDENS["more_by_fingerprint"].get(measured["fingerprint"])
    if known is None:
        pytest.skip("no golden was recorded on a machine that rounds like this one")
    assert {name: found[2] for name, found in measured["more"].items()} == known[str(measured["engine_bits"])]


def test_goldens_were_recorded_over_these_rows():
    assert GOLDENS["rows"] == ROWS


EXACT_LOSSES = ["0000194100c0a140", "0040f04000a80341", "00c4124100e0e540", "0050ea4000779a40"]
EXACT_STATE = {
    "model.weight": "00c0553f00d079bf0020c93e00a8f73f",
    "model.bias": "004074be",
    "optimizer.velocity.weight": "0000a4be0000463e0080243f0040bd3f",
    "optimizer.velocity.bias": "0080173f",
}


class Exact(Workload):
    """A linear model whose every number is a small multiple of a power of two: nothing is ever rounded.

    Its dropout draws from torch's generator one number after the other, which is the same arithmetic everywhere.
    """

    def build(self, o, facts):
        model = torch.nn.Linear(4, 1)
        with torch.no_grad():
            model.weight.copy_(torch.tensor([[1.0, -2.0, 0.5, 3.0]]))
            model.bias.copy_(torch.tensor([0.25]))
        return model

    def loss(self, model, batch):
        kept = torch.rand(batch["x"].shape) < 0.5 if model.training else torch.full(batch["x"].shape, 0.5)
        return (model(batch["x"] * kept * 2).squeeze(1) - batch["y"]).abs().mean()


@pytest.fixture(scope="module")
def whole_numbers(tmp_path_factory):
    """Rows of whole numbers from -4 to 3."""
    splits = {}
    for at, (name, rows) in enumerate({"train": 16, "val": 8}.items(), 1):
        x = (uniform(at, rows * 4).reshape(rows, 4) * 8).astype(np.int64).astype(np.float32) - 4
        splits[name] = {"x": x, "y": x.sum(1)}
    directory = tmp_path_factory.mktemp("whole")
    write(directory, splits, describe(splits, "regression"))
    return Dataset.open(directory)


def test_attempts_without_rounding_give_these_very_bytes_on_every_machine(whole_numbers):
    """Order of rows, seeds of dropout, accumulation, momentum and clipping of values, in 8 attempts of 2 parts of 4."""
    workload.register("exact", Exact)
    plan = planned(
        whole_numbers,
        model={"architecture": "workload", "workload": "exact"},
        optimizer={"type": "sgd", "learning_rate": 0.125, "momentum": 0.5},
        gradients=[{"type": "clip_value", "limit": 0.75}],
        training={"epochs": 4, "batch_size": 4, "accumulate": 2, "grad_clip": None},
        resolved={"window": 8},
    )
    run = Run.start(plan, whole_numbers)
    reports = finished(run)
    assert [one.window.losses.hex() for one in reports] == EXACT_LOSSES
    assert [one.evaluation.values["val_loss"] for one in reports] == [
        5.4921875, 4.962890625, 4.02685546875, 3.68402099609375
    ]  # fmt: skip
    assert {name: one.numpy().astype("<f4").tobytes().hex() for name, one in run.tensors().items()} == EXACT_STATE
