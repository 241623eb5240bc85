"""How far rounding reaches: docs/fast-convolution.md states what is held here."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from layer_table import build, images

from distnet.nn import Conv2d

U = 2.0**-24  # half a unit in the last place of float32
SIDE = 12


def outputs(algorithm, kernel, x, weight, dtype):
    layer = Conv2d(len(weight), kernel, pad=kernel // 2, algorithm=algorithm)
    layer = build(layer, x.shape[1:], dtype)
    layer.weight.value[...] = weight
    layer.bias.value.fill(0)
    layer.refresh()
    return layer.forward(x.astype(dtype)).astype(np.float64)


def largest_of_tiles(x, m, kernel):
    """For each output pixel the largest |pixel| of each channel that its tile of m x m reads."""
    pad, reach = kernel // 2, m + kernel - 1
    padded = np.pad(np.abs(x), [(0, 0), (0, 0), (pad, reach), (pad, reach)])
    largest = np.zeros(x.shape)
    for i, j in np.ndindex(SIDE, SIDE):
        top, left = i // m * m, j // m * m
        tile = padded[:, :, top : top + reach, left : left + reach]
        largest[:, :, i, j] = tile.max(axis=(2, 3))
    return largest


@pytest.mark.parametrize(
    ("algorithm", "m", "kernel", "c"),
    [
        ("winograd4", 4, 3, 64),
        ("winograd2", 2, 3, 16),
        ("winograd2", 2, 5, 32),
        ("blocked", 1, 3, 8),
    ],
)
@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 24),
    st.tuples(st.integers(0, SIDE - 1), st.integers(0, SIDE - 1)),
    st.integers(0, 6),
    st.integers(0, 999),
)
@example(1, (5, 5), 0, 718)  # the worst of a thousand
@example(1, (5, 5), 0, 958)
def test_errors_are_relative_to_the_largest_pixel_of_a_tile(
    algorithm, m, kernel, c, channels, pixel, power, seed
):
    x = images((2, channels, SIDE, SIDE), np.float32, seed=seed)
    x[0, seed % channels, pixel[0], pixel[1]] *= 10.0**power
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal((4, channels, kernel, kernel)).astype(np.float32)
    found = outputs(algorithm, kernel, x, weight, np.float32)
    error = np.abs(found - outputs("im2col", kernel, x, weight, np.float64))
    weights = np.abs(weight).sum(axis=(2, 3), dtype=np.float64)  # (F, C)
    scale = np.einsum("ncij,fc->nfij", largest_of_tiles(x, m, kernel), weights)
    assert (error <= c * U * scale).all()


def test_a_nan_stays_in_the_tiles_that_see_it():
    x = images((1, 3, SIDE, SIDE), np.float32)
    x[0, 1, 6, 6] = np.nan
    weight = np.ones((2, 3, 3, 3), np.float32)
    found = np.isnan(outputs("winograd4", 3, x, weight, np.float32))
    expected = np.zeros_like(found)
    expected[:, :, 4:8, 4:8] = True  # its own tile; the neighbours read rows and columns 3 to 8
    assert (found == expected).all()
