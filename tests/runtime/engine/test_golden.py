"""Recorded bits: what our own arithmetic gave, on every machine or on one with the same fingerprint.

A failure means that `ENGINE_BITS` must be raised; goldens are added to, never edited.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.engine.environment import sealed
from tests.runtime.engine.plans import ROWS

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
