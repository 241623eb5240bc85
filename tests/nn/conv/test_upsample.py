"""Upsample: PyTorch's numbers, what stays as it is, and the adjoint identity."""

import numpy as np
import pytest
from layer_table import build, images

from distnet.nn import Upsample
from distnet.nn.conv.upsample import interpolation

BILINEAR = [  # torch.nn.functional.interpolate of 0 to 5, scale_factor=2
    [0, 0.25, 0.75, 1.25, 1.75, 2],
    [0.75, 1, 1.5, 2, 2.5, 2.75],
    [2.25, 2.5, 3, 3.5, 4, 4.25],
    [3, 3.25, 3.75, 4.25, 4.75, 5],
]
CORNERS_STAY = [
    [0, 0.4, 0.8, 1.2, 1.6, 2],
    [1, 1.4, 1.8, 2.2, 2.6, 3],
    [2, 2.4, 2.8, 3.2, 3.6, 4],
    [3, 3.4, 3.8, 4.2, 4.6, 5],
]
NEAREST = [[0, 0, 1, 1, 2, 2], [0, 0, 1, 1, 2, 2], [3, 3, 4, 4, 5, 5], [3, 3, 4, 4, 5, 5]]
MODES = [
    ({}, NEAREST),
    ({"mode": "bilinear"}, BILINEAR),
    ({"mode": "bilinear", "align_corners": True}, CORNERS_STAY),
]
in_all_modes = pytest.mark.parametrize(("options", "expected"), MODES)


@in_all_modes
def test_values_are_those_of_pytorch(options, expected):
    layer = build(Upsample(2, **options), (1, 2, 3))
    y = layer.forward(np.arange(6.0).reshape(1, 1, 2, 3))
    np.testing.assert_allclose(y, [[expected]], atol=1e-14)


@in_all_modes
@pytest.mark.parametrize("scale", [1, 3, (2, 5)])
def test_backward_is_the_adjoint_and_constants_stay(options, expected, scale):
    layer, x = build(Upsample(scale, **options), (3, 4, 2)), images((2, 3, 4, 2))
    y = layer.forward(x)
    dy = images(y.shape, seed=1)
    assert np.vdot(y, dy) == pytest.approx(np.vdot(x, layer.backward(dy)))
    np.testing.assert_allclose(layer.forward(np.ones_like(x)), 1, rtol=1e-14)
    if scale == 1:
        np.testing.assert_allclose(layer.forward(x), x, atol=1e-14)


@pytest.mark.parametrize("align_corners", [False, True])
def test_weights_are_of_two_neighbours_and_add_up_to_one(align_corners):
    matrix = interpolation(6, 4, "bilinear", align_corners)
    np.testing.assert_allclose(matrix.sum(axis=1), 1)
    assert (np.count_nonzero(matrix, axis=1) <= 2).all()
    assert (matrix >= 0).all()


def test_a_single_pixel_is_repeated():
    for options, _ in MODES:
        y = build(Upsample(3, **options), (1, 1, 1)).forward(np.full((1, 1, 1, 1), 7.0))
        np.testing.assert_array_equal(y, np.full((1, 1, 3, 3), 7.0))


def test_unknown_modes_are_refused():
    with pytest.raises(ValueError, match="Upsample: found mode 'cubic', expected one of nearest, "):
        Upsample(2, mode="cubic")
