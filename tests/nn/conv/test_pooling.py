"""MaxPool2d against plain loops: padding, ties, gaps and overlaps; and that ReLU commutes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layer_table import build, images

from distnet.nn import MaxPool2d, ReLU, Sequential


def loops(x, dy, kernel, stride, pad):
    """y and dx window by window; the first of equal elements wins."""
    width = ((0, 0), (0, 0), (pad, pad), (pad, pad))
    padded = np.pad(x, width, constant_values=-np.inf)
    y, dpadded = np.zeros_like(dy), np.zeros_like(padded)
    for n, c, u, v in np.ndindex(*dy.shape):
        window = padded[n, c, u * stride : u * stride + kernel, v * stride : v * stride + kernel]
        i, j = np.unravel_index(window.argmax(), window.shape)
        y[n, c, u, v] = window[i, j]
        dpadded[n, c, u * stride + i, v * stride + j] += dy[n, c, u, v]
    h, w = x.shape[2:]
    return y, dpadded[:, :, pad : pad + h, pad : pad + w]


def integers(shape, seed):
    """Few different numbers, positive, negative and zero, so that windows hold equal ones."""
    x = images(shape, seed=seed)
    x[...] = np.round(1.5 * x)
    return x + 0.0  # no negative zeros


@st.composite
def poolings(draw):
    """Kernel, stride, pad, image shape; 2 x 2 windows that tile the image are frequent."""
    if draw(st.booleans()):
        h, w = draw(st.integers(1, 3)), draw(st.integers(1, 3))
        return 2, 2, 0, (draw(st.integers(1, 3)), 2 * h, 2 * w)
    kernel, stride = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    pad = draw(st.integers(0, kernel - 1))
    side = st.integers(max(1, kernel - 2 * pad), 8)
    return kernel, stride, pad, (draw(st.integers(1, 3)), draw(side), draw(side))


@settings(max_examples=200)
@given(poolings(), st.integers(1, 3), st.integers(0, 99))
def test_pooling_equals_the_loops(pooling, n, seed):
    kernel, stride, pad, shape = pooling
    layer = build(MaxPool2d(kernel, stride=stride, pad=pad), shape)
    x = integers((n, *shape), seed)
    dy = images((n, *layer.output_shape), seed=seed + 1)
    y, dx = loops(x, dy, kernel, stride, pad)
    np.testing.assert_array_equal(layer.forward(x), y)
    np.testing.assert_allclose(layer.backward(dy), dx, rtol=1e-14, atol=1e-14)


@settings(max_examples=100)
@given(poolings(), st.integers(1, 3), st.integers(0, 99))
def test_pooling_and_relu_commute(pooling, n, seed):
    kernel, stride, pad, shape = pooling

    def run(layers):
        chain = build(Sequential(layers), shape, np.float32)
        y = chain.forward(x).copy()
        return y, chain.backward(images(y.shape, np.float32, seed=seed + 1))

    x = integers((n, *shape), seed).astype(np.float32)
    pool = {"kernel": kernel, "stride": stride, "pad": pad}
    as_in_the_book = run([ReLU(), MaxPool2d(**pool)])
    as_here = run([MaxPool2d(**pool), ReLU()])
    np.testing.assert_array_equal(as_here[0], as_in_the_book[0])
    np.testing.assert_array_equal(as_here[1], as_in_the_book[1])


def test_padding_never_wins():
    layer = build(MaxPool2d(3, stride=1, pad=1), (1, 2, 2))
    x = np.array([[[[-1.0, -2.0], [-3.0, -4.0]]]])
    np.testing.assert_array_equal(layer.forward(x), np.full((1, 1, 2, 2), -1.0))


@pytest.mark.parametrize("shape", [(1, 2, 2), (1, 3, 3)])
def test_the_first_of_equal_elements_gets_the_gradient(shape):
    layer = build(MaxPool2d(2), shape)
    y = layer.forward(np.ones((1, *shape)))
    dx = layer.backward(np.full(y.shape, 7.0))
    expected = np.zeros((1, *shape))
    expected[0, 0, 0, 0] = 7
    np.testing.assert_array_equal(dx, expected)


def test_the_stride_defaults_to_the_kernel():
    assert MaxPool2d(3).build((2, 9, 12)) == (2, 3, 4)
    assert MaxPool2d(3, stride=2).build((2, 9, 12)) == (2, 4, 5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernel": 2, "pad": 2}, "pad 2, expected less than the kernel 2"),
        ({"kernel": 2, "pad": -1}, "pad -1"),
        ({"kernel": 5}, "does not fit"),
    ],
)
def test_impossible_geometries_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        MaxPool2d(**options).build((3, 4, 4))
