"""The points that Winograd's convolution takes round less than all others that were tried."""

from pathlib import Path

import numpy as np
import pytest

from distnet.experiments import load
from distnet.nn.conv.winograd_transforms import transforms

ROOT = Path(__file__).resolve().parents[2]
script = load(ROOT / "docs/measurements/winograd_points.py")


@pytest.mark.parametrize(("m", "k"), script.SIZES.values())
def test_the_points_taken_round_least(m, k):
    errors = {name: script.errors(m, k, p, num_tiles=16) for name, p in script.POINTS.items()}
    taken = errors.pop("1, -1, 1/2, -2")
    assert all(np.all(taken < others) for others in errors.values())


@pytest.mark.parametrize(("m", "k"), script.SIZES.values())
def test_they_are_those_of_the_layer(m, k):
    expected = transforms(m, k, script.POINTS["1, -1, 1/2, -2"])
    for found, matrix in zip(transforms(m, k), expected, strict=True):
        np.testing.assert_array_equal(found, matrix)


def test_every_point_set_computes_the_convolution():
    rng = np.random.default_rng(0)
    x, g = rng.standard_normal((2, 32, 6, 6)), rng.standard_normal((32, 32, 3, 3))
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(2, 3))
    expected = np.einsum("pchwij,fcij->pfhw", windows, g)
    for points in script.POINTS.values():
        y, _, _ = script.convolve(4, 3, points, (x, g, np.zeros((2, 32, 4, 4))), np.float64)
        np.testing.assert_allclose(y, expected, rtol=1e-9, atol=1e-9)
