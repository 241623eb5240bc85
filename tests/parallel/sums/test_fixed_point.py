from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from distnet.parallel.sums.fixed_point import (
    BLOCK,
    FixedPoint,
    WideFixedPoint,
    blocks_from_end,
    last_beyond,
)

INT64_MAX = 2**63 - 1
counts = st.integers(1, 10**6)


def add_all(fixed_point, contributions):
    accumulator = np.zeros_like(contributions[0], dtype=np.int64)
    for values in contributions:
        assert fixed_point.add(accumulator, values) is None
    return accumulator


@given(
    st.lists(st.floats(-1000, 1000, width=32), min_size=1, max_size=20),
    st.sampled_from([np.float32, np.float64]),
    st.integers(0, 40),
)
def test_error_is_at_most_half_a_unit_a_contribution(values, dtype, scale_bits):
    fixed_point = FixedPoint(len(values), scale_bits)
    (total,) = add_all(fixed_point, [np.array([v], dtype) for v in values])
    error = Fraction(int(total), 2**scale_bits) - sum(map(Fraction, values))
    assert abs(error) <= Fraction(len(values), 2 ** (scale_bits + 1))


@given(
    st.lists(st.floats(-2047, 2047, width=32), min_size=1, max_size=20),
    st.sampled_from([np.float32, np.float64]),
    st.integers(-10, 40),
)
def test_a_large_neighbour_changes_nothing(values, dtype, scale_bits):
    """Beyond 2^51 units a block is rounded in another way, to the same numbers."""
    fixed_point = FixedPoint(1, scale_bits)
    large = 2.0 ** (52 - scale_bits)
    expected = [round(Fraction(v) * Fraction(2) ** scale_bits) for v in values]
    alone = add_all(fixed_point, [np.array(values, dtype)])
    beside = add_all(fixed_point, [np.array([*values, large], dtype)])
    assert alone.tolist() == expected
    assert beside.tolist() == [*expected, 2**52]


@given(st.lists(st.floats(-1000, 1000), min_size=2, max_size=12), st.randoms())
def test_sum_depends_neither_on_order_nor_on_grouping(values, random):
    fixed_point = FixedPoint(len(values))
    arrays = [np.array([v]) for v in values]
    expected = add_all(fixed_point, arrays)
    random.shuffle(arrays)
    cut = random.randrange(1, len(arrays))
    parts = [add_all(fixed_point, part) for part in (arrays[:cut], arrays[cut:])]
    np.testing.assert_array_equal(parts[0] + parts[1], expected)


@given(counts, st.integers(-20, 60))
def test_head_room_fits_any_number_of_extreme_contributions(num_contributions, scale_bits):
    """In exact integers: n times the limit fits int64, n times twice the limit does not."""
    fixed_point = FixedPoint(num_contributions, scale_bits)
    limit = Fraction(fixed_point.limit) * Fraction(2) ** scale_bits
    assert limit.denominator == 1
    assert num_contributions * limit <= INT64_MAX < num_contributions * 2 * limit


@pytest.mark.parametrize("num_contributions", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("sign", [1, -1])
def test_extreme_contributions_are_summed_without_wrapping(num_contributions, sign):
    fixed_point = FixedPoint(num_contributions)
    extreme = np.full(3, sign * fixed_point.limit, np.float32)
    total = add_all(fixed_point, [extreme] * num_contributions)
    expected = sign * num_contributions * int(fixed_point.limit) * 2**40
    assert total.tolist() == [expected] * 3
    out = np.empty(3, np.float64)
    fixed_point.to_float(total, out)
    np.testing.assert_array_equal(out, sign * num_contributions * fixed_point.limit)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, "above", "below"])
@pytest.mark.parametrize("index", [0, 1, BLOCK, 2 * BLOCK + 4])
def test_bad_values_are_refused_and_found(dtype, bad, index):
    fixed_point = FixedPoint(10)
    above = np.nextafter(dtype(fixed_point.limit), dtype(np.inf))
    values = np.ones(2 * BLOCK + 5, dtype)
    values[index] = {"above": above, "below": -above}.get(bad, bad)
    accumulator = np.zeros(values.size, np.int64)
    assert fixed_point.add(accumulator, values) == index
    assert accumulator[index] == 0
    assert set(np.unique(accumulator)) == {0, 2**40}


def test_of_several_bad_values_the_last_is_found():
    values = np.zeros(3 * BLOCK, np.float32)
    values[[5, BLOCK + 1, BLOCK + 7]] = np.nan
    assert FixedPoint(1).add(np.zeros(values.size, np.int64), values) == BLOCK + 7


@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 3])
def test_blocks_make_no_difference(size):
    values = np.random.default_rng(size).standard_normal(size).astype(np.float32)
    fixed_point = FixedPoint(2)
    total = add_all(fixed_point, [values, values])
    expected = 2 * np.rint(values.astype(np.float64) * 2.0**40).astype(np.int64)
    np.testing.assert_array_equal(total, expected)
    out = np.empty(size, np.float32)
    fixed_point.to_float(total, out)
    np.testing.assert_array_equal(out, (expected / 2.0**40).astype(np.float32))


def test_tiny_values_round_to_nothing():
    values = np.array([1e-45, -1e-45, 2.0**-42], np.float32)
    assert add_all(FixedPoint(1), [values]).tolist() == [0, 0, 0]


def test_no_contribution_has_no_head_room():
    with pytest.raises(ValueError, match="found num_contributions 0, expected at least 1"):
        FixedPoint(0)


@given(st.integers(0, 100), st.integers(1, 40))
def test_blocks_cover_everything_once_from_the_end(size, length):
    blocks = list(blocks_from_end(size, length))
    indices = [i for block in reversed(blocks) for i in range(size)[block]]
    assert indices == list(range(size))
    assert all(block.stop - block.start == length for block in blocks[:-1])


def test_values_at_the_limit_are_within():
    assert last_beyond(np.array([-2.0, 2.0]), 2.0) is None
    assert last_beyond(np.array([]), 2.0) is None
    assert last_beyond(np.array([2.5, -2.5, 2.0]), 2.0) == 1


# Two words a number.


def wide_sum(contributions):
    wide = WideFixedPoint(len(contributions), 1)
    accumulator = np.zeros((2, 1), np.int64)
    for value in contributions:
        assert wide.add(accumulator, np.array([[value]]))
    out = np.empty(1)
    wide.to_float(accumulator, out)
    return out[0], accumulator


@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=50), st.randoms())
def test_wide_sums_have_nearly_all_digits_in_any_order(values, random):
    total, words = wide_sum(values)
    exact = sum(map(Fraction, values))
    error = abs(Fraction(float(total)) - exact)
    assert error <= Fraction(len(values), 2**65) + abs(exact) / 2**51
    random.shuffle(values)
    np.testing.assert_array_equal(wide_sum(values)[1], words)
    together = np.zeros((2, 1), np.int64)
    assert WideFixedPoint(len(values), 1).add(together, np.array(values)[:, None])
    np.testing.assert_array_equal(together, words)


def test_a_variance_from_wide_sums_is_right():
    """The mean is 10,000 times the spread: mean squares that differ by 1e-8 of themselves."""
    for scale in (1e-2, 1.0, 100.0):
        x = scale * (10_000 + np.random.default_rng(0).standard_normal(64))
        mean, square = wide_sum(x / 64)[0], wide_sum(x * x / 64)[0]
        assert square - mean**2 == pytest.approx(x.var(), rel=1e-6)


@pytest.mark.parametrize("num_contributions", [1, 3, 1000, 10**6])
def test_wide_sums_of_extremes_do_not_wrap(num_contributions):
    wide = WideFixedPoint(num_contributions, 2)
    extreme = np.array([wide.limit, 2.0**-13])  # the largest, and the most that a low word holds
    accumulator = np.zeros((2, 2), np.int64)
    assert wide.add(accumulator, extreme[None])
    exact = accumulator.astype(object) * num_contributions
    assert (exact < 2**63).all()
    out = np.empty(2)
    wide.to_float(exact.astype(np.int64), out)
    np.testing.assert_array_equal(out, num_contributions * extreme)


def test_wide_sums_refuse_what_is_beyond_the_limit():
    wide, accumulator = WideFixedPoint(10, 3), np.zeros((2, 3), np.int64)
    assert not wide.add(accumulator, np.array([[1, np.nan, 0.5]]))
    assert not wide.add(accumulator, np.array([[1, 2, 3], [1, 2 * wide.limit, 0.5]]))
    assert not accumulator.any()


# Stacks.


@given(
    arrays(np.float32, (3, 7), elements=st.floats(-50, 50, width=32)), st.booleans(), st.booleans()
)
def test_a_stack_adds_what_its_rows_add_one_by_one(stack, first, is_finer):
    fixed = FixedPoint(1000, 42 if is_finer else 40)
    together = np.arange(7) << 50
    one_by_one = together.copy()
    assert fixed.add_stack(together, stack, first=first)
    for number, row in enumerate(stack):
        assert fixed.add(one_by_one, row, first=first and number == 0) is None
    np.testing.assert_array_equal(together, one_by_one)


def test_a_stack_of_several_blocks_wraps_nowhere():
    rng = np.random.default_rng(0)
    stack = rng.uniform(-1, 1, (16, BLOCK + 5)).astype(np.float32)
    fixed, total = FixedPoint(16), np.zeros(BLOCK + 5, np.int64)
    assert fixed.add_stack(total, stack, first=True)
    exact = np.rint(stack.astype(np.float64) * fixed.scale).astype(np.int64).sum(axis=0)
    np.testing.assert_array_equal(total, exact)


@pytest.mark.parametrize("value", [np.nan, np.inf, 5000.0])
def test_a_stack_with_what_cannot_be_rounded_by_addition_adds_nothing(value):
    stack = np.ones((3, 4), np.float32)
    stack[1, 2] = value
    total = np.arange(4)
    assert not FixedPoint(10).add_stack(total, stack, first=True)
    np.testing.assert_array_equal(total, np.arange(4))
