"""Sums in a byte an element: the whole numbers of an agreed unit, and what is kept for later."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from distnet.parallel import CHANGES, NonFiniteGradient, make_reducer
from distnet.parallel.sums.exact4 import Exact4
from distnet.parallel.sums.exact8 import Exact8
from distnet.parallel.sums.exact32 import GROUP

SIZE = 2 * GROUP + 1000
NUM_CONTRIBUTIONS = 5
LEVELS = Exact8.most // NUM_CONTRIBUTIONS


def contributions():
    """Groups of different magnitude, the middle one all zero."""
    magnitudes = np.repeat([1e-6, 0.0, 30.0], [1000, GROUP, GROUP])
    values = np.random.default_rng(0).standard_normal((NUM_CONTRIBUTIONS, SIZE)) * magnitudes
    return values.astype(np.float32)


def largest_of(values):
    bounds = [0, 1000, 1000 + GROUP, SIZE]
    groups = [np.abs(values[..., a:b]).max() for a, b in pairwise(bounds)]
    return np.array(groups[::-1], np.float64)  # from the end


@pytest.mark.parametrize("exchange", ["auto", "messages"])
@pytest.mark.parametrize("bucket_bytes", [999, 1 << 20])
def test_bits_are_those_of_whole_numbers(any_comm, exchange, bucket_bytes):
    all_values, vector = contributions(), np.zeros(SIZE, np.float32)
    reducer = make_reducer(
        "exact8",
        any_comm,
        vector,
        0,
        num_contributions=NUM_CONTRIBUTIONS,
        exchange=exchange,
        bucket_bytes=bucket_bytes,
        formats=CHANGES,
    )
    format = reducer.exchange.format
    np.testing.assert_array_equal(format.magnitudes(all_values[0]), largest_of(all_values[0]))
    largest = largest_of(all_values)
    format.agree_on(largest)
    units = (np.repeat(largest[::-1], [1000, GROUP, GROUP]) / LEVELS).astype(np.float32)
    units[units == 0] = 1
    whole = np.rint(all_values / units).astype(np.float64)
    assert np.abs(whole).max() == LEVELS
    for _ in range(2):  # a step leaves nothing behind
        mine = range(any_comm.rank, NUM_CONTRIBUTIONS, any_comm.size)
        reducer.start(mine)
        for m in mine:
            vector[...] = all_values[m]
            reducer.add(m, np.zeros(0))
        total, _ = reducer.finish()
        assert total.tobytes() == (whole.sum(axis=0) * units).astype(np.float32).tobytes()
    assert reducer.exchange.bytes_sent in (SIZE, 0)


def test_what_is_rounded_is_summed_as_it_is():
    """So what is kept for later is exactly what a sum does not hold."""
    format, total = Exact8(SIZE, NUM_CONTRIBUTIONS), np.zeros(SIZE, np.int8)
    values = contributions()[0]
    format.agree_on(format.magnitudes(values))
    rounded = format.rounded(values)
    assert format.add(total, rounded, 0, first=True) is None
    back = np.zeros(SIZE, np.float32)
    format.convert(total, 0, back)
    np.testing.assert_array_equal(back, rounded)
    assert 0 < np.abs(values - rounded).max() <= 30 * 5 / LEVELS / 2


@pytest.mark.parametrize("magnitude", [1e-45, 7.6e-43, 1e-38, 1e-31, 1e-29, 1e38])
def test_numbers_next_to_nothing_and_next_to_infinity(magnitude):
    """Where float32 loses digits, numbers are kept for later as a whole."""
    format, total = Exact8(100, NUM_CONTRIBUTIONS), np.zeros(100, np.int8)
    values = np.linspace(-1, 1, 100).astype(np.float32) * np.float32(magnitude)
    format.agree_on(format.magnitudes(values))
    rounded = format.rounded(values)
    assert format.add(total, values, 0, first=True) is None
    assert np.abs(total).max() == (LEVELS if magnitude > 1e-30 else 0)
    assert np.abs(values - rounded).max() <= magnitude / (LEVELS if magnitude > 1e-30 else 1)


def test_numbers_beyond_the_agreed_range_are_told(any_comm):
    vector = np.zeros(SIZE, np.float32)
    reducer = make_reducer(
        "exact8", any_comm, vector, 0, num_contributions=NUM_CONTRIBUTIONS, formats=CHANGES
    )
    reducer.exchange.format.agree_on(np.ones(3))
    for bad in (1.03, -np.inf, np.nan):
        mine = (0,) if any_comm.rank == any_comm.size - 1 else ()
        reducer.start(mine)
        vector[...] = 0.5
        vector[-7] = bad
        for m in mine:
            reducer.add(m, np.zeros(0))
        with pytest.raises(NonFiniteGradient) as caught:
            reducer.finish()
        assert caught.value.index == SIZE - 7


@pytest.mark.parametrize("format, most, levels", [(Exact8, 63, 2), (Exact4, 7, 1)])
def test_more_contributions_than_there_is_room_for(format, most, levels):
    assert format(10, most).levels == levels
    with pytest.raises(
        ValueError, match=f"found {most + 1} contributions, expected at most {most}"
    ):
        format(10, most + 1)
