"""Numbers of 16 bits are the nearest ones, ties to even."""

import numpy as np
import pytest

from distnet.base.arithmetic import arithmetic_of, loss_scale
from distnet.base.halves import HALVES, to_bfloat16, to_float16

DIGITS = {"float16": 11, "bfloat16": 8}  # significant bits


@pytest.mark.parametrize("name", HALVES)
def test_they_are_the_nearest_with_so_many_bits(name):
    x = np.random.default_rng(0).normal(size=5000).astype(np.float32)
    rounded = x.copy()
    HALVES[name](rounded)
    mantissa, exponent = np.frexp(x.astype(np.float64))
    scale = 2.0 ** DIGITS[name]
    expected = np.ldexp(np.rint(mantissa * scale) / scale, exponent)  # rint: ties to even
    np.testing.assert_array_equal(rounded, expected)
    again = rounded.copy()
    HALVES[name](again)
    np.testing.assert_array_equal(again, rounded)


@pytest.mark.parametrize("name", HALVES)
def test_they_are_rounded_where_they_lie(name):
    """Also a part of a larger array; what is not finite stays so."""
    x = np.full((3, 4), 1 + 2.0**-12, np.float32)
    x[1, 1], x[2, 1] = np.nan, -np.inf
    HALVES[name](x[:, 1:3])
    assert (x[:, 1:3][np.isfinite(x[:, 1:3])] == 1).all() and (x[:, [0, 3]] > 1).all()
    assert np.isnan(x[1, 1]) and x[2, 1] == -np.inf


def test_their_ranges_differ():
    large, small = np.array([1e5, 1e-10], np.float32), np.array([1e5, 1e-10], np.float32)
    to_float16(large)
    to_bfloat16(small)
    assert list(large) == [np.inf, 0]
    np.testing.assert_allclose(small, [1e5, 1e-10], rtol=2**-8)


def test_the_scale_of_a_loss_is_a_power_of_two():
    for largest in (1e-9, 0.3, 7.0, 8.0, 16.0, 1e8):
        scale = loss_scale(np.array([0, -largest], np.float32))
        assert np.log2(scale) == int(np.log2(scale)) and 8 <= largest * scale <= 16
    for nothing in ([0.0, 0.0], [np.nan, 1], [np.inf, 1]):
        assert loss_scale(np.array(nothing, np.float32)) == 1
    assert np.isfinite(np.float32(loss_scale(np.array([1e-45], np.float32))))


def test_double_precision_is_refused():
    with pytest.raises(ValueError, match="arithmetic float16: found parameters of float64"):
        arithmetic_of("float16").dtype(np.float64)
