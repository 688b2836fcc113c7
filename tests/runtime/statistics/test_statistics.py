"""Intervals and tests against values from the literature, and against what can be counted by hand."""

from __future__ import annotations

import math
import random
from statistics import mean, median

import pytest
from scipy.stats import binomtest

from contracts.errors import InvalidInput
from runtime.statistics.resampling import bootstrap, holm, jackknife_acceleration, share_of, sign_flip

SPATIAL = [48, 36, 20, 29, 42, 42, 20, 42, 22, 41, 45, 14, 6, 0, 33, 28, 34, 4, 32, 24, 47, 41, 24, 26, 30, 41]
"""The test data of Efron and Tibshirani, An Introduction to the Bootstrap (1993), table 14.1, column A."""

MAIZE = [49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48]
"""Darwin's pairs of plants, in eighths of an inch, as Fisher judged them in The Design of Experiments (1935)."""


def variance(values):
    middle = mean(values)
    return sum((one - middle) ** 2 for one in values) / len(values)


def test_the_interval_of_the_textbook_comes_out():
    assert jackknife_acceleration(SPATIAL, variance) == pytest.approx(0.061, abs=5e-4)
    found = bootstrap(SPATIAL, variance, confidence=0.9, draws=20_000)
    assert found.estimate == pytest.approx(171.5, abs=0.05)
    # The book's 2000 draws gave (115.8, 259.6).
    assert found.low == pytest.approx(115.8, abs=2.5)
    assert found.high == pytest.approx(259.6, abs=4)


def test_an_interval_is_the_same_again_and_holds_what_it_should():
    values = [1.0, 1.02, 0.97, 1.1, 1.01, 0.99, 1.0]
    assert bootstrap(values, median) == bootstrap(values, median)
    assert bootstrap(values, mean) != bootstrap(values, mean, seed=2)
    assert bootstrap([3.0] * 5, median) == (3.0, 3.0, 3.0)
    draw = random.Random(11)
    held = 0
    for seed in range(200):
        found = bootstrap([draw.gauss(5, 1) for _ in range(20)], mean, draws=400, seed=seed)
        held += found.low <= 5 <= found.high
    assert 0.82 <= held / 200 <= 0.95


@pytest.mark.parametrize("asked", [{"values": [1.0]}, {"confidence": 1.0}, {"draws": 0}])
def test_what_has_no_interval_is_refused(asked):
    with pytest.raises(InvalidInput):
        bootstrap(**{"values": [1.0, 2.0], "statistic": mean, **asked})


@pytest.mark.parametrize(("part", "whole"), [(7, 9), (0, 10), (12, 12), (1, 2)])
def test_a_share_has_the_interval_of_wilson(part: int, whole: int):
    found = share_of(part, whole, confidence=0.95)
    wilson = binomtest(part, whole).proportion_ci(0.95, method="wilson")
    assert found == pytest.approx((part / whole, wilson.low, wilson.high))
    for nothing in ((1, 0), (3, 2), (-1, 2)):
        with pytest.raises(InvalidInput, match="is no share"):
            share_of(*nothing)


def test_signs_are_flipped_as_fisher_did():
    # 863 of the 32,768 ways have a sum of at least 314; as many have one of at most -314.
    assert sign_flip(MAIZE) == 2 * 863 / 32_768
    assert sign_flip([1.0] * 5) == 2 / 32
    assert sign_flip([0.1, 0.2, -0.3]) == 1.0
    assert sign_flip([0.0, 1.0]) == 1.0


def test_many_differences_are_judged_by_draws():
    far, near = [1.0] * 20, [(-1.0) ** at for at in range(20)]
    assert sign_flip(far, draws=999) == 1 / 1000
    assert sign_flip(near, draws=999) == 1.0
    drawn = sign_flip([*MAIZE, 0.0, 0.0], draws=20_000)
    assert drawn == sign_flip([*MAIZE, 0.0, 0.0], draws=20_000) == pytest.approx(2 * 863 / 32_768, abs=0.006)
    for wrong in ([], [math.nan, 1.0]):
        with pytest.raises(InvalidInput):
            sign_flip(wrong)


def test_probabilities_looked_at_together_are_raised():
    # The smallest times four, the next times three, and none below the one before it.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.6]) == [1.0, 1.0]
    assert holm([]) == []
    with pytest.raises(InvalidInput):
        holm([0.1, 1.5])
