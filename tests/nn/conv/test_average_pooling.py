"""AvgPool2d against plain loops and the adjoint identity; GlobalAvgPool2d."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layer_table import build, images
from test_pooling import poolings

from distnet.nn import AvgPool2d, GlobalAvgPool2d, layout


def loops(x, layer):
    """y window by window, on images that are really padded."""
    (kh, kw), (sh, sw), (ph, pw) = layer.kernel, layer.stride, layer.pad
    n, c, h, w = x.shape
    padded = np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)))
    is_image = np.pad(np.ones((h, w), bool), ((ph, ph), (pw, pw)))
    y = np.zeros((n, *layer.output_shape))
    for u, v in np.ndindex(*y.shape[2:]):
        window = np.s_[..., u * sh : u * sh + kh, v * sw : v * sw + kw]
        pixels = padded[window].size // (n * c)
        count = pixels if layer.count_include_pad else is_image[window].sum()
        y[:, :, u, v] = padded[window].sum(axis=(2, 3)) / count
    return y


@settings(max_examples=200)
@given(poolings(), st.booleans(), st.integers(1, 3), st.integers(0, 99))
def test_averages_equal_the_loops_and_backward_is_the_adjoint(pooling, include, n, seed):
    options, shape = pooling
    layer = build(AvgPool2d(**options, count_include_pad=include), shape)
    x = images((n, *shape), seed=seed)
    y = layer.forward(x)
    np.testing.assert_allclose(y, loops(x, layer), rtol=1e-13, atol=1e-13)
    dy = images(y.shape, seed=seed + 1)
    assert np.vdot(y, dy) == pytest.approx(np.vdot(x, layer.backward(dy)), abs=1e-11)


@pytest.mark.parametrize(
    ("options", "corner"),
    [({}, 4 / 9), ({"count_include_pad": False}, 1.0)],
    ids=["padding counts", "only pixels count"],
)
def test_what_is_divided_by_at_a_corner(options, corner):
    layer = build(AvgPool2d(3, stride=1, pad=1, **options), (1, 4, 4))
    y = layer.forward(np.ones((1, 1, 4, 4)))
    assert y[0, 0, 0, 0] == pytest.approx(corner)
    assert y[0, 0, 1, 1] == 1


def test_what_lies_beyond_the_padding_never_counts():
    layer = build(AvgPool2d(2, ceil_mode=True), (1, 3, 3))
    np.testing.assert_array_equal(layer.forward(np.ones((1, 1, 3, 3))), np.ones((1, 1, 2, 2)))


def test_a_global_average_is_that_of_each_channel():
    layer, x = build(GlobalAvgPool2d(), (3, 4, 5)), images((2, 3, 4, 5))
    y = layer.forward(x)
    np.testing.assert_allclose(y, x.mean(axis=(2, 3)), rtol=1e-13)
    dy = images((2, 3))
    assert np.vdot(y, dy) == pytest.approx(np.vdot(x, layer.backward(dy)))


def test_a_global_average_equals_that_of_one_window():
    x = images((2, 3, 4, 5))
    window, whole = build(AvgPool2d((4, 5)), x.shape[1:]), build(GlobalAvgPool2d(), x.shape[1:])
    np.testing.assert_allclose(window.forward(x)[..., 0, 0], whole.forward(x), rtol=1e-13)


@pytest.mark.parametrize("layer", [GlobalAvgPool2d, lambda: AvgPool2d(2)])
def test_vectors_are_refused(layer):
    with pytest.raises(ValueError, match=r"AvgPool2d: found input shape \(5,\), expected images"):
        layer().build((5,))


def test_the_memory_order_of_the_engine_is_kept():
    layer = build(AvgPool2d(2), (3, 4, 4))
    assert layout.native(layer.forward(images((2, 3, 4, 4)))).flags.c_contiguous
