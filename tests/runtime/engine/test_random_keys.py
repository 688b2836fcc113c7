"""Draws are functions of keys."""

from __future__ import annotations

import random

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from runtime.engine import draws, random_keys
from runtime.engine.random_keys import Draw, Stream, mix

words = st.integers(0, 2**64 - 1)


@given(words, words)
def test_one_by_one_and_all_at_once_draw_the_same(key, word):
    assert int(random_keys.spread(mix(key), np.array([word], np.uint64))[0]) == mix(key, word)
    assert int(random_keys.finalised(np.array([word], np.uint64))[0]) == random_keys.finalise(word)


@given(words, words)
def test_the_order_of_words_matters(first, second):
    assert first == second or mix(first, second) != mix(second, first)


def test_the_mixer_is_the_one_that_engine_bits_names():
    assert mix(42, Stream.ORDER, 7) == 0x8212B757915F1CFB
    assert [float(one).hex() for one in random_keys.uniform(1, 3)] == [
        "0x1.21c38c0000000p-2",
        "0x1.87a5e80000000p-1",
        "0x1.5f9ec00000000p-2",
    ]


def test_uniform_draws_are_even_and_exact():
    drawn = random_keys.uniform(5, 100_000)
    assert drawn.dtype == np.float32
    assert abs(float(drawn.mean()) - 0.5) < 0.005
    assert np.all(drawn * 2**24 == np.floor(drawn * 2**24))
    assert 0 <= drawn.min() < drawn.max() < 1


def test_streams_of_one_seed_do_not_meet():
    assert len({mix(1, stream, 0) for stream in Stream}) == len(Stream)


def test_a_sample_draws_the_same_whenever_and_wherever_it_is_asked():
    one, other = Draw(1, 2, 3), Draw(1, 2, 3)
    assert [one.uniform(-1, 1), one.below(9), one.coin()] == [other.uniform(-1, 1), other.below(9), other.coin()]
    assert Draw(1, 2, 4).below(2**40) != Draw(1, 3, 3).below(2**40)
    assert all(0 <= Draw(1, 2, sample).below(3) < 3 for sample in range(100))


def test_reseeding_wipes_out_what_was_drawn_before():
    def drawn():
        return torch.rand(3).tolist(), random.random(), np.random.rand()  # noqa: NPY002

    draws.reseed_all(77)
    first = drawn()
    drawn()
    draws.reseed_all(77)
    assert drawn() == first


def test_steps_have_seeds_of_their_own():
    seeds = random_keys.step_seeds(3, 0, 1000)
    assert len(set(seeds)) == 1000
    assert random_keys.step_seeds(3, 500, 10) == seeds[500:510]
    assert set(seeds).isdisjoint(random_keys.step_seeds(4, 0, 1000))


def test_the_seeds_of_steps_are_those_that_engine_bits_names():
    assert random_keys.step_seeds(3, 0, 4) == [
        3823407367980697356,
        2516457835818405772,
        6490589477723684580,
        7801432304453834638,
    ]
