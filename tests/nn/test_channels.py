"""Sums for each channel, against NumPy's in float64."""

import numpy as np
import pytest

from distnet.base.arithmetic import FLOAT, Portable
from distnet.nn import channels, layout

SHAPES = [(3, 5), (1, 1), (4, 3, 6, 7), (2, 16, 1, 1), (7, 2, 33, 5)]


def numbers(shape, dtype, seed=0):
    x = layout.empty(shape, dtype)
    x[...] = np.random.default_rng(seed).standard_normal(shape) + 1
    return x


def expected(x):
    return x.astype(np.float64).sum(axis=(0, 2, 3)[: x.ndim - 1])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("arithmetic", "dtype", "rtol"),
    [(FLOAT, np.float32, 1e-6), (FLOAT, np.float64, 1e-14), (Portable(), np.float64, 1e-12)],
)
def test_sums_and_products(shape, arithmetic, dtype, rtol):
    x, y = numbers(shape, dtype), numbers(shape, dtype, seed=1)
    scratch = layout.empty(shape, dtype)
    near = {"rtol": rtol, "atol": rtol * x[:, 0].size}
    np.testing.assert_allclose(channels.sums(x, arithmetic, scratch), expected(x), **near)
    found = channels.products(x, y, arithmetic, scratch)
    np.testing.assert_allclose(found, expected(x.astype(np.float64) * y), **near)
    assert found.dtype == np.float64 and found.shape == (shape[1],)


def test_a_large_image_loses_no_digits():
    """As many as float64 would have: rows are added up in it. In float32 alone it is 1e-5."""
    x = numbers((2, 3, 300, 300), np.float32)
    found = channels.sums(x, FLOAT, layout.empty(x.shape, np.float32))
    np.testing.assert_allclose(found, expected(x), rtol=3e-7)


def test_bits_do_not_depend_on_where_the_numbers_lie():
    """Nor on zeros around them: the inside of a padded image, the next address."""
    x, y = numbers((5, 3, 6, 4), np.float32), numbers((5, 3, 6, 4), np.float32, seed=1)
    scratch = layout.empty(x.shape, np.float32)
    sums = channels.sums(x, FLOAT, scratch)
    products = channels.products(x, y, FLOAT, scratch)
    padded = layout.zeros((5, 3, 8, 6), np.float32)[..., 1:-1, 1:-1]
    memory = np.empty(x.size + 16, np.float32)
    shifted = [layout.shaped(memory[start:][: x.size], x.shape) for start in range(17)]
    for place in [padded, *shifted]:
        place[...] = x
        assert np.array_equal(channels.sums(place, FLOAT, scratch), sums)
        assert np.array_equal(channels.products(place, y, FLOAT, scratch), products)
