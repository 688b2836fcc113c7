"""Rows that no weights can bear are named, by a function of plan and state, and a training without them goes on."""

from __future__ import annotations

import numpy as np
import pytest

from runtime.engine.dataset import Dataset, write
from runtime.engine.facts import describe
from runtime.engine.loop import Run
from runtime.engine.parts.levers import SkipRows
from runtime.engine.plan import Change
from tests.runtime.engine.plans import ROWS, columns, planned

BAD = (38, 91, 92)
"""Training rows, by their places from 1."""


@pytest.fixture(scope="module")
def poisoned(tmp_path_factory):
    splits = {name: columns(rows, 10 * at) for at, (name, rows) in enumerate(ROWS.items(), 1)}
    sound = describe(splits, "classification")
    for place in BAD:
        splits["train"]["x"][place - 1, 0, 3, 3] = np.nan
    directory = tmp_path_factory.mktemp("poisoned")
    write(directory, splits, sound)
    return Dataset.open(directory)


def first_unsound(plan, dataset):
    run = Run.start(plan, dataset)
    while (window := run.advance().window).finite:
        pass
    return window


@pytest.mark.parametrize(
    "sections",
    [
        {},
        {"model": {"architecture": "cnn", "channels": [4], "dropout": 0.2}},
        {"training": {"epochs": 12, "batch_size": 8, "accumulate": 2, "precision": "bf16"}},
        {"augment": [{"type": "noise"}]},
    ],
    ids=["mlp", "normalised", "accumulating", "augmented"],
)
def test_every_row_that_no_weights_can_bear_is_named_at_the_first_and_left_out_for_good(poisoned, sections):
    plan = planned(poisoned, **sections)
    window = first_unsound(plan, poisoned)
    found = Run.start(plan, poisoned).bisect(window.last)
    assert (found.rows, window.first < found.step <= window.last) == (BAD, True)
    begun = Run.start(plan, poisoned)
    while begun.step < window.first:
        begun.advance()
    again = Run.resume(plan, poisoned, begun.tensors(), window.first, control=begun.control).bisect(window.last)
    assert again == found, "it depends on where the search began"
    repaired = Run.start(plan.after(Change(0, (SkipRows.of(found.rows),))), poisoned)
    while not repaired.finished:
        assert repaired.advance().window.finite


def test_when_the_weights_are_at_fault_no_row_is_named(images):
    plan = planned(images, optimizer={"type": "sgd", "learning_rate": 1.0}, training={"epochs": 2, "grad_clip": None})
    plan = plan.after(Change.read(0, {"learning_rate": 1e30}))
    window = first_unsound(plan, images)
    found = Run.start(plan, images).bisect(window.last)
    assert found.step
    assert found.rows == ()


def test_a_window_that_is_sound_names_nothing(images):
    plan = planned(images)
    assert Run.start(plan, images).bisect(10).step == 0
