"""Best, patience and early stop follow from the evaluations on the path."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.request.training import EarlyStopping
from runtime.engine.report import Control


def control(**rules):
    return Control.of(EarlyStopping(**rules))


def test_it_stops_when_patience_is_used_up():
    seen = control(patience=2).after_all([(1, 1.0), (2, 0.5), (3, 0.6), (4, 0.5)])
    assert (seen.best, seen.best_step, seen.patience_left, seen.stop) == (0.5, 2, 0, True)
    assert not control(patience=2, enabled=False).after_all([(1, 1.0), (2, 2.0), (3, 2.0)]).stop


@pytest.mark.parametrize(
    ("metric", "better"), [("val_loss", 0.4), ("val_rmse", 0.4), ("val_accuracy", 0.6), ("val_r2", 0.6)]
)
def test_better_means_less_for_errors_and_more_for_scores(metric, better):
    start = control(metric=metric).after(1, 0.5)
    assert start.after(2, better).improved
    assert not start.after(2, 1 - better).improved
    assert not start.after(2, 0.5).improved


def test_less_than_the_least_gain_is_no_gain():
    start = control(min_delta=0.1).after(1, 1.0)
    assert not start.after(2, 0.95).improved
    assert start.after(2, 0.85).improved


def test_what_is_not_a_number_never_improves():
    seen = control(patience=2).after(1, math.nan)
    assert (seen.best, seen.improved, seen.waited) == (None, False, 1)
    assert seen.after(2, 1.0).improved
    assert not control().after(1, 1.0).after(2, math.nan).improved
    assert not control().after(1, math.inf).improved


@given(st.lists(st.floats(0, 1), max_size=20), st.data())
def test_it_is_restored_from_what_was_recorded(values, data):
    evaluations = list(enumerate(values))
    cut = data.draw(st.integers(0, len(evaluations)))
    whole = control(patience=3).after_all(evaluations)
    assert control(patience=3).after_all(evaluations[:cut]).after_all(evaluations[cut:]) == whole
