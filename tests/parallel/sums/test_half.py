"""16-bit formats: rounding to nearest, what they hold exactly, and how far sums may be off."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distnet.parallel import make_reducer
from distnet.parallel.sums.half import BFloat16, Float16

SIGNIFICANT_BITS = {"float16": 11, "bfloat16": 8}
FORMATS = {"float16": Float16, "bfloat16": BFloat16}


def through(kind, values):
    """`values` rounded to the format and back."""
    values = np.asarray(values, np.float32)
    patterns, out = np.empty(values.shape, np.uint16), np.empty_like(values)
    FORMATS[kind].pack(values, patterns)
    FORMATS[kind].unpack(patterns, out)
    return out


@pytest.mark.parametrize("kind", FORMATS)
@given(st.lists(st.floats(2.0**-13, 64, width=32), min_size=1, max_size=20), st.booleans())
def test_rounding_is_to_nearest(kind, values, negative):
    values = np.array(values, np.float32) * (-1 if negative else 1)
    bound = np.abs(values) * 2.0 ** -SIGNIFICANT_BITS[kind]
    assert np.all(np.abs(through(kind, values).astype(np.float64) - values) <= bound)


@pytest.mark.parametrize("kind", FORMATS)
def test_ties_go_to_even(kind):
    last = 2.0 ** (1 - SIGNIFICANT_BITS[kind])
    ties = [1 + last / 2, 1 + 3 * last / 2, -1 - last / 2]
    assert through(kind, ties).tolist() == [1, 1 + 2 * last, -1]


@pytest.mark.parametrize("kind", FORMATS)
def test_all_patterns_survive(kind):
    """Every finite 16-bit number is its own nearest one."""
    exponent = {"float16": 0x7C00, "bfloat16": 0x7F80}[kind]
    patterns = np.arange(1 << 16, dtype=np.uint16)
    patterns = patterns[patterns & exponent != exponent]
    values, again = np.empty(patterns.size, np.float32), np.empty_like(patterns)
    FORMATS[kind].unpack(patterns, values)
    FORMATS[kind].pack(values, again)
    np.testing.assert_array_equal(again, patterns)


@pytest.mark.parametrize("kind", FORMATS)
def test_sums_are_close(any_comm, kind):
    """Rounded once by each rank and once by each addition of two messages."""
    size, generator = 50_000, np.random.default_rng(0)
    values = generator.uniform(0.5, 1, (any_comm.size, size)).astype(np.float32)
    mine = values[any_comm.rank]
    reducer = make_reducer(
        kind, any_comm, mine, 0, num_contributions=any_comm.size, bucket_bytes=1 << 14
    )
    reducer.start([0])
    reducer.add(0, np.zeros(0))
    total, _ = reducer.finish()
    expected = values.sum(axis=0, dtype=np.float64)
    error = np.abs(total - expected).max()
    assert 0 < error <= any_comm.size * expected.max() * 2.0 ** -SIGNIFICANT_BITS[kind]
    assert len(set(any_comm.allgather(total.tobytes()))) == 1
