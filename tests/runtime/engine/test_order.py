"""The endless row of permutations: bijective, without memory, the same everywhere."""

from __future__ import annotations

import numpy as np
import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.engine.sampling import BLOCK, Order, Permutations

keys = st.integers(0, 2**64 - 1)


def permutation(key, rows):
    return Permutations(np.array([key], np.uint64), rows)


@given(keys, st.integers(1, 3000))
def test_every_row_stands_at_exactly_one_position(key, rows):
    found = permutation(key, rows).at(np.arange(rows))[0]
    assert sorted(found.tolist()) == list(range(rows))


@given(keys, st.integers(1, 10**12), st.data())
def test_a_row_is_found_where_it_stands(key, rows, data):
    positions = np.array(data.draw(st.lists(st.integers(0, rows - 1), min_size=1, max_size=20)))
    one = permutation(key, rows)
    (found,) = one.at(positions)
    assert found.min() >= 0
    assert found.max() < rows
    assert one.find(found)[0].tolist() == positions.tolist()


def test_no_rows_have_no_permutation():
    with pytest.raises(ValueError, match="at least one row"):
        permutation(1, 0)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 400), st.integers(0, 5000), st.integers(1, 2000), st.data())
def test_any_cut_of_the_row_is_the_same_rows(seed, rows, first, count, data):
    middle = data.draw(st.integers(0, count))
    whole = Order(seed, rows).take(first, count)
    fresh = Order(seed, rows)
    pieces = [fresh.take(first + middle, count - middle), fresh.take(first, middle)] if 0 < middle < count else [whole]
    assert np.concatenate(pieces[::-1]).tolist() == whole.tolist()


@given(st.integers(0, 100), st.integers(1, 300), st.integers(0, 5))
def test_every_epoch_holds_every_row_once(seed, rows, epoch):
    assert sorted(Order(seed, rows).take(epoch * rows, rows).tolist()) == list(range(rows))


def test_a_row_is_traced_to_its_position_without_a_scan():
    order = Order(9, 1000)
    position = order.where(123, 4)
    assert 4000 <= position < 5000
    assert order.take(position, 1).tolist() == [123]


def test_blocks_of_a_large_set_join_without_a_seam():
    rows = BLOCK + 1000
    taken = Order(3, rows).take(BLOCK - 500, 1000)
    whole = Order(3, rows).permutations(np.array([0]))
    assert taken.tolist() == whole.at(np.arange(BLOCK - 500, BLOCK + 500))[0].tolist()


def test_epochs_and_seeds_differ():
    order = Order(1, 500)
    first = order.take(0, 500).tolist()
    assert first != order.take(500, 500).tolist()
    assert first != Order(2, 500).take(0, 500).tolist()


def test_the_order_looks_like_chance():
    rows = 50_000
    found = Order(11, rows).take(0, rows)
    assert abs(np.corrcoef(np.arange(rows), found)[0, 1]) < 0.02
    assert int((found == np.arange(rows)).sum()) < 8
    table, _, _ = np.histogram2d(np.arange(rows), found, bins=10)
    assert float(((table - rows / 100) ** 2 / (rows / 100)).sum()) < 125  # 81 degrees of freedom, p about 0.001


def test_the_order_is_the_one_that_engine_bits_names():
    taken = Order(42, 1437).take(0, 64 * 100)
    assert blake3(taken.astype("<i8").tobytes()).hexdigest()[:32] == "39ced81a1307b795e56714a9121f24b8"
