"""Sums in half a byte an element: two numbers in a byte that stay apart when bytes are added."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from distnet.parallel import CHANGES, make_reducer
from distnet.parallel.sums.exact4 import Exact4

NUM_CONTRIBUTIONS = 3  # each of which has two levels on either side of zero


@pytest.mark.parametrize("size", [1, 2, 225])
def test_all_pairs_of_sums_stay_apart(size):
    """(-7 ... 7)^2 for two neighbours, as sums of the messages of several ranks."""
    format = Exact4(size, 7)  # of one level each
    pairs = np.array(list(product(range(-7, 8), repeat=2)), np.int8)
    for wanted in pairs if size <= 2 else [np.resize(pairs, size)]:
        total, message = np.resize(wanted, size), 0
        for rank in range(7):  # which give what is left of it, one unit at most
            part = np.sign(total) * (np.abs(total) > rank)
            message = message + format.encode(part.astype(np.int8), 0)
            assert message.dtype == np.int8
        assert message.nbytes == (size + 1) // 2
        out = np.empty(size, np.float32)
        format.decode(message, 0, out)
        np.testing.assert_array_equal(out, total)


@pytest.mark.parametrize("exchange", ["auto", "messages"])
@pytest.mark.parametrize("bucket_bytes", [99, 1 << 20])
def test_bits_are_those_of_whole_numbers(any_comm, exchange, bucket_bytes):
    size = 2 * Exact4.group + 101
    values = np.random.default_rng(0).standard_normal((NUM_CONTRIBUTIONS, size))
    values, vector = values.astype(np.float32), np.zeros(size, np.float32)
    reducer = make_reducer(
        "exact4",
        any_comm,
        vector,
        0,
        num_contributions=NUM_CONTRIBUTIONS,
        exchange=exchange,
        bucket_bytes=bucket_bytes,
        formats=CHANGES,
    )
    format = reducer.exchange.format
    largest = np.max([format.magnitudes(each) for each in values], axis=0)
    format.agree_on(largest)
    units = np.repeat(largest[::-1], [101, Exact4.group, Exact4.group]).astype(np.float32) / 2
    whole = np.rint(values / units)
    assert np.abs(whole).max() == 2
    for _ in range(2):  # a step leaves nothing behind
        mine = range(any_comm.rank, NUM_CONTRIBUTIONS, any_comm.size)
        reducer.start(mine)
        for m in mine:
            vector[...] = values[m]
            reducer.add(m, np.zeros(0))
        total, _ = reducer.finish()
        assert total.tobytes() == (whole.sum(axis=0) * units).astype(np.float32).tobytes()
