"""RoI align: what it reads, and its gradient."""

from __future__ import annotations

import numpy as np
import pytest

from distnet.nn import layout
from distnet.nn.roi_align import RoIAlign, bins

BOXES = np.array(
    [
        [[0, 0, 24, 20], [3.5, 2.25, 9, 17], [10, 4, 11, 5]],
        [[-6, 8, 4, 30], [16, 12, 24, 20], [5, 5, 22, 7.5]],
    ]
)


def features(seed=0):
    x = layout.empty((2, 3, 5, 6), np.float64)
    x[...] = np.random.default_rng(seed).standard_normal(x.shape)
    return x


def test_bins_of_one_cell_each_read_that_cell():
    found = bins(np.array([4.0]), np.array([16.0]), 3, 6, stride=4)
    np.testing.assert_array_equal(found[0], np.eye(6)[1:4])


def test_bins_between_cells_interpolate_and_wide_ones_average():
    half = bins(np.array([2.0]), np.array([6.0]), 1, 6, stride=4)
    np.testing.assert_allclose(half[0], [[0.5, 0.5, 0, 0, 0, 0]])
    wide = bins(np.array([4.0]), np.array([16.0]), 1, 6, stride=4)
    np.testing.assert_allclose(wide[0] * 9, [[1, 2, 3, 2, 1, 0]], rtol=1e-6)


def test_weights_add_up_to_one_wherever_the_box_is():
    rng = np.random.default_rng(0)
    low = rng.uniform(-20, 30, 100)
    found = bins(low, low + rng.uniform(0.5, 60, 100), 7, 6, stride=4)
    np.testing.assert_allclose(found.sum(axis=2), 1, rtol=1e-6)
    assert found.min() >= 0


def test_pooled_features_are_weighted_sums():
    x, align = features(), RoIAlign(2, stride=4)
    found = align.forward(x, BOXES).reshape(2, 3, 2, 2, 3)  # image, box, row, column, channel
    for image, box in np.ndindex(2, 3):
        x1, y1, x2, y2 = BOXES[image, box]
        (of_rows,), (of_columns,) = (
            bins(np.array([a]), np.array([b]), 2, cells, 4).astype(float)
            for a, b, cells in ((y1, y2, 5), (x1, x2, 6))
        )
        expected = np.einsum("ph,chw,qw->pqc", of_rows, x[image], of_columns)
        np.testing.assert_allclose(found[image, box], expected, rtol=1e-6)


def test_a_constant_stays_and_a_slope_is_read_at_the_middles():
    align = RoIAlign(4, stride=1)
    x = layout.zeros((1, 2, 12, 12), np.float64)
    x[0, 0], x[0, 1] = 5, np.arange(12)  # in columns
    found = align.forward(x, np.array([[[2, 3, 10, 9]]])).reshape(4, 4, 2)
    np.testing.assert_allclose(found[..., 0], 5, rtol=1e-6)
    np.testing.assert_allclose(found[..., 1], np.tile([2.5, 4.5, 6.5, 8.5], (4, 1)), rtol=1e-6)


def test_backward_is_the_adjoint():
    x, align = features(), RoIAlign(3, stride=4)
    y = align.forward(x, BOXES)
    dy = np.random.default_rng(1).standard_normal(y.shape)
    dx = align.backward(dy)
    assert dx.shape == x.shape and dx.dtype == x.dtype
    other = features(seed=2)
    change = align.forward(x + other, BOXES) - y
    assert np.vdot(change, dy) == pytest.approx(np.vdot(other, dx), rel=1e-10)


def test_float32_stays_float32():
    align = RoIAlign(3, stride=4)
    y = align.forward(features().astype(np.float32), BOXES)
    assert y.dtype == np.float32 and align.backward(y).dtype == np.float32
