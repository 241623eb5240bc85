"""Portable arithmetic: functions against longer numbers, sums of any order, who may take part."""

import math
from fractions import Fraction
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distnet.base import elementary
from distnet.base.arithmetic import (
    FLOAT,
    IntegerGenerator,
    Portable,
    arithmetic_of,
    bit_length,
    grid_unit,
    is_portable,
    portable,
    to_grid,
)

RNG = np.random.default_rng(0)


def assert_close(found, exact, most):
    """Off by at most so many units in the last place of a number that is known to more digits."""
    units = np.abs(found - exact) / np.spacing(np.abs(exact.astype(np.float64)))
    assert units.max() <= most


def test_exp():
    x = np.concatenate([RNG.uniform(-690, 700, 20000), RNG.uniform(-1, 1, 20000), [0.0, -0.0]])
    assert_close(elementary.exp(x), np.exp(x.astype(np.longdouble)), 1.2)
    assert elementary.exp(np.array([0.0, 709.7]))[0] == 1
    assert np.isinf(elementary.exp(np.array([711.0, 1e6, 1e300, np.inf]))).all()
    assert (
        elementary.exp(np.array([-701.0, -1e9, -np.inf])) == elementary.exp(np.array([-700.0]))
    ).all()
    assert np.isnan(elementary.exp(np.array([np.nan]))).all()


def test_log():
    x = np.concatenate([np.exp(RNG.uniform(-600, 600, 20000)), RNG.uniform(0.5, 2, 20000)])
    assert_close(elementary.log(x), np.log(x.astype(np.longdouble)), 3)
    assert elementary.log(np.array([1.0, 0.0])).tolist() == [0, -np.inf]


def test_tanh():
    x = np.concatenate([RNG.uniform(-30, 30, 20000), RNG.uniform(-1, 1, 20000), [1e-300, 400]])
    assert_close(elementary.tanh(x), np.tanh(x.astype(np.longdouble)), 4)
    assert np.signbit(elementary.tanh(np.array([-0.0, -1e9]))).all()


@pytest.mark.parametrize("name", ["exp", "log", "tanh"])
def test_functions_write_where_they_read(name):
    function, x = getattr(elementary, name), RNG.uniform(0.1, 5, (3, 4))
    expected, out = function(x), np.empty_like(x)
    assert function(x, out) is out
    assert (out == expected).all()
    # NumPy's own is what float32 takes.
    assert (getattr(FLOAT, name)(x) == getattr(np, name)(x)).all()
    assert function(x, x) is x
    assert (x == expected).all()


def test_powers_and_cosines():
    for n in (0, 1, 2, 7, 1000, 100_000):
        assert elementary.power(0.999, n) == pytest.approx(0.999**n, rel=1e-12)
    for x in np.linspace(0, math.pi, 101):
        assert elementary.cos(x) == pytest.approx(math.cos(x), abs=2.3e-16)
    angles = np.linspace(-math.pi, math.pi, 10_001)
    np.testing.assert_allclose(elementary.sin(angles), np.sin(angles), rtol=0, atol=3.5e-15)
    small = np.array([0.0, 1e-300, 1e-8, 0.5])
    np.testing.assert_allclose(elementary.sin(small), np.sin(small), rtol=2.3e-16)


def test_cosines_and_sines_of_any_angle():
    angles = np.concatenate([np.linspace(-0.3, 0.3, 1001), np.linspace(-50, 50, 10_001)])
    for found, exact in zip(Portable().cos_sin(angles), FLOAT.cos_sin(angles), strict=True):
        np.testing.assert_allclose(found[:1001], exact[:1001], rtol=0, atol=2.3e-16)
        np.testing.assert_allclose(found, exact, rtol=0, atol=2e-14)


def test_powers_and_roots():
    for arithmetic in (FLOAT, Portable()):
        assert arithmetic.powers(0.5, 4).tolist() == [1, 0.5, 0.25, 0.125]
        np.testing.assert_allclose(arithmetic.powers(0.99, 30), 0.99 ** np.arange(30.0), 1e-14)
        for x, n in ((1e7, 199), (2.0, 1), (1e-9, 3)):
            assert arithmetic.root(x, n) == pytest.approx(x ** (1 / n), rel=1e-14)


def test_log1p_of_what_a_sigmoid_leaves():
    x = np.exp(-np.linspace(0, 40, 401))
    np.testing.assert_allclose(Portable().log1p(x), np.log1p(x), rtol=0, atol=2.3e-16)
    assert (FLOAT.log1p(x) == np.log1p(x)).all()


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20), st.integers(4, 16))
def test_a_grid_holds_the_nearest_numbers_of_so_many_bits(numbers, bits):
    x = np.array(numbers)
    unit = grid_unit(x, bits)
    on_grid = to_grid(x, unit, np.empty_like(x))
    assert math.frexp(unit)[0] == 0.5
    whole = on_grid / unit
    assert (whole == np.rint(x / unit)).all()
    assert np.abs(whole).max() <= 2**bits
    assert not np.signbit(on_grid[on_grid == 0]).any()


def test_float32_is_rounded_to_a_grid_in_float64():
    x = np.array([1.0, 2.0**-12 * 1.5, -(2.0**-12) * 0.5], np.float32)
    assert to_grid(x, 2.0**-12, np.empty(3)).tolist() == [1.0, 2.0**-11, 0]


def test_what_is_not_finite_stays_so():
    x = np.array([1.0, np.nan, np.inf, -np.inf])
    on_grid = to_grid(x, grid_unit(x, 12), np.empty(4))
    assert np.isnan(on_grid[1])
    assert on_grid[2:].tolist() == [np.inf, -np.inf]
    assert grid_unit(np.zeros(3), 12) == grid_unit(np.zeros(0), 12) > 0


@given(st.integers(0, 2**32), st.integers(1, 300))
def test_sums_are_those_of_fractions_in_any_order(seed, count):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((count, 3)) * 10.0 ** rng.integers(-6, 6, (count, 1))
    total = Portable().sum(x)
    unit = grid_unit(x, 53 - bit_length(count))
    rounded = to_grid(x, unit, np.empty_like(x))
    assert total.tolist() == [float(sum(map(Fraction, column))) for column in rounded.T]
    order = rng.permutation(count)
    assert (Portable().sum(x[order]) == total).all()
    np.testing.assert_allclose(total, x.sum(axis=0), atol=count * unit)


def test_sums_have_the_options_of_numpy():
    x = RNG.standard_normal((2, 3, 4))
    for arithmetic in (FLOAT, Portable()):
        total = arithmetic.sum
        np.testing.assert_allclose(total(x, axis=(0, 2)), x.sum(axis=(0, 2)))
        np.testing.assert_allclose(total(x, axis=None), x.sum())
        assert total(x, axis=-1, keepdims=True).shape == (2, 3, 1)
        out = np.empty((2, 4))
        assert total(x, axis=1, out=out, scratch=x.copy()) is out
        np.testing.assert_allclose(out, x.sum(axis=1))


def test_normal_numbers_are_made_of_integers():
    numbers = IntegerGenerator(np.random.Philox(key=1)).standard_normal((100, 400))
    assert numbers.shape == (100, 400)
    assert (numbers * 2**16 == np.rint(numbers * 2**16)).all()
    assert numbers.mean() == pytest.approx(0, abs=0.015)
    assert numbers.std() == pytest.approx(1, abs=0.01)
    assert (np.abs(numbers) < 2).mean() == pytest.approx(0.954, abs=0.005)
    # The first ones, on every machine: of a stream that NumPy keeps as it is.
    assert (numbers[0, :3] * 2**16).tolist() == FIRST_NUMBERS


def test_permutations_are_made_of_integers():
    order = IntegerGenerator(np.random.Philox(key=1)).permutation(100)
    assert sorted(order.tolist()) == list(range(100))
    assert (np.diff(np.random.Philox(key=1).random_raw(100)[order].astype(float)) >= 0).all()


def test_softplus():
    x = np.linspace(-50, 50, 1001)
    np.testing.assert_allclose(Portable().softplus(x), FLOAT.softplus(x), rtol=0, atol=1e-14)


FIRST_NUMBERS = [-23615.0, 2613.0, -58756.0]


def test_a_promise_is_not_inherited():
    @portable
    class Parent:
        pass

    class Child(Parent):
        pass

    assert is_portable(Parent)
    assert not is_portable(Child)
    assert is_portable(partial(portable(lambda x, y: x), 1))
    assert not is_portable(partial(lambda x, y: x, 1))
    FLOAT.check(Child, "Child")
    with pytest.raises(ValueError, match=r"the child: not declared portable.*docs/portable.md"):
        Portable().check(Child, "the child")


@pytest.mark.parametrize("bits", [3, 17, 12.5])
def test_bits_that_no_budget_holds_are_refused(bits):
    with pytest.raises(ValueError, match=f"found bits {bits}, expected a whole number from 4 to"):
        Portable(bits)


def test_budgets_of_products():
    FLOAT.check_terms("Linear", 10**12)
    Portable(12).check_terms("Linear", 2**29)
    with pytest.raises(ValueError, match=r"Linear: found sums of 536,870,913 products of 12 bits"):
        Portable(12).check_terms("Linear", 2**29 + 1)


def test_names():
    assert arithmetic_of("portable").bits == 12
    assert arithmetic_of(FLOAT) is FLOAT
    with pytest.raises(ValueError, match="found 'exact', expected one of float32, portable"):
        arithmetic_of("exact")
