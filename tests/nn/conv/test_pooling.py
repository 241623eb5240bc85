"""MaxPool2d against plain loops: padding, ties, gaps and overlaps; and that ReLU commutes."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layer_table import build, images

from distnet.nn import MaxPool2d, ReLU, Sequential


def loops(x, dy, layer):
    """y and dx window by window; the first of equal elements wins, and the last NaN."""
    (kh, kw), (sh, sw), (ph, pw) = layer.kernel, layer.stride, layer.pad
    h, w = x.shape[2:]
    y, dx = np.zeros_like(dy), np.zeros_like(x)
    for n, c, u, v in np.ndindex(*dy.shape):
        rows = range(max(0, u * sh - ph), min(h, u * sh - ph + kh))
        columns = range(max(0, v * sw - pw), min(w, v * sw - pw + kw))
        best = None
        for i, j in itertools.product(rows, columns):
            pixel = x[n, c, i, j]
            if best is None or pixel > x[n, c][best] or np.isnan(pixel):
                best = i, j
        y[n, c, u, v] = x[n, c][best]
        dx[n, c][best] += dy[n, c, u, v]
    return y, dx


def integers(shape, seed):
    """Few different numbers, positive, negative and zero, so that windows hold equal ones."""
    x = images(shape, seed=seed)
    x[...] = np.round(1.5 * x)
    return x + 0.0  # no negative zeros


@st.composite
def poolings(draw):
    """Options and the image's shape; 2 x 2 windows that tile the image are frequent."""
    channels = draw(st.integers(1, 3))
    if draw(st.booleans()):
        return {"kernel": 2}, (channels, 2 * draw(st.integers(1, 3)), 2 * draw(st.integers(1, 3)))
    kernel, stride = (draw(st.tuples(st.integers(1, 4), st.integers(1, 4))) for _ in range(2))
    pad = tuple(draw(st.integers(0, k - 1)) for k in kernel)
    size = [draw(st.integers(max(1, k - 2 * p), 8)) for k, p in zip(kernel, pad, strict=True)]
    options = {"kernel": kernel, "stride": stride, "pad": pad, "ceil_mode": draw(st.booleans())}
    return options, (channels, *size)


@settings(max_examples=200)
@given(poolings(), st.integers(1, 3), st.integers(0, 99), st.sampled_from([2, -np.inf, np.nan]))
def test_pooling_equals_the_loops(pooling, n, seed, special):
    options, shape = pooling
    layer = build(MaxPool2d(**options), shape)
    x = integers((n, *shape), seed)
    x[x == 2] = special
    dy = images((n, *layer.output_shape), seed=seed + 1)
    y, dx = loops(x, dy, layer)
    np.testing.assert_array_equal(layer.forward(x), y)
    np.testing.assert_allclose(layer.backward(dy), dx, rtol=1e-14, atol=1e-14)


@settings(max_examples=100)
@given(poolings(), st.integers(1, 3), st.integers(0, 99))
def test_pooling_and_relu_commute(pooling, n, seed):
    options, shape = pooling

    def run(layers):
        chain = build(Sequential(layers), shape, np.float32)
        y = chain.forward(x).copy()
        return y, chain.backward(images(y.shape, np.float32, seed=seed + 1))

    x = integers((n, *shape), seed).astype(np.float32)
    as_in_the_book = run([ReLU(), MaxPool2d(**options)])
    as_here = run([MaxPool2d(**options), ReLU()])
    np.testing.assert_array_equal(as_here[0], as_in_the_book[0])
    np.testing.assert_array_equal(as_here[1], as_in_the_book[1])


def test_padding_never_wins():
    layer = build(MaxPool2d(3, stride=1, pad=1), (1, 2, 2))
    x = np.array([[[[-1.0, -2.0], [-3.0, -4.0]]]])
    np.testing.assert_array_equal(layer.forward(x), np.full((1, 1, 2, 2), -1.0))


def test_padding_never_wins_against_minus_infinity():
    layer = build(MaxPool2d(2, pad=1), (1, 2, 2))
    y = layer.forward(np.full((1, 1, 2, 2), -np.inf))
    np.testing.assert_array_equal(y, np.full((1, 1, 2, 2), -np.inf))
    np.testing.assert_array_equal(layer.backward(np.ones_like(y)), np.ones((1, 1, 2, 2)))


@pytest.mark.parametrize("pool", [{"kernel": 2}, {"kernel": 2, "stride": 1}])
def test_the_last_nan_of_a_window_gets_the_gradient(pool):
    layer = build(MaxPool2d(**pool), (1, 2, 2))
    for window, expected in [
        ([[1, np.nan], [3, 2]], [[0, 1], [0, 0]]),
        ([[np.nan, 9], [3, np.nan]], [[0, 0], [0, 1]]),
        ([[np.nan, np.nan], [3, 9]], [[0, 1], [0, 0]]),
    ]:
        np.testing.assert_array_equal(layer.forward(np.array([[window]], float)), [[[[np.nan]]]])
        np.testing.assert_array_equal(layer.backward(np.ones((1, 1, 1, 1))), [[expected]])


@pytest.mark.parametrize(
    ("options", "size", "expected"),
    [  # as torch.nn.MaxPool2d has it
        ({"kernel": 3, "stride": 2}, (112, 112), (55, 55)),
        ({"kernel": 3, "stride": 2, "ceil_mode": True}, (112, 112), (56, 56)),
        ({"kernel": 3, "stride": 2, "ceil_mode": True}, (7, 8), (3, 4)),
        ({"kernel": 2, "stride": 3, "ceil_mode": True}, (6, 7), (2, 3)),  # not begin after row 5
        ({"kernel": 3, "stride": 2, "ceil_mode": True}, (2, 2), (1, 1)),
        ({"kernel": 2, "stride": 2, "pad": 1, "ceil_mode": True}, (3, 4), (2, 3)),
        ({"kernel": (3, 2), "stride": (1, 2), "pad": (1, 0)}, (5, 5), (5, 2)),
    ],
)
def test_how_many_windows(options, size, expected):
    assert MaxPool2d(**options).build((2, *size)) == (2, *expected)


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
        ({"kernel": 2, "pad": 2}, "pad 2, expected less than the kernel, 2"),
        ({"kernel": 2, "pad": -1}, "pad -1"),
        ({"kernel": (3, 2), "pad": 2}, "pad 2, expected less than the kernel"),
        ({"kernel": 5}, "MaxPool2d: a kernel of 5 x 5 does not fit into 4 x 4 pixels"),
        ({"kernel": 2, "stride": 0}, "MaxPool2d: found stride 0, expected a whole number of at le"),
        ({"kernel": 0}, "found kernel 0"),
        ({"kernel": True}, "found kernel True"),
    ],
)
def test_impossible_geometries_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        MaxPool2d(**options).build((3, 4, 4))


def test_vectors_have_no_windows():
    with pytest.raises(ValueError, match=r"MaxPool2d: found input shape \(5,\), expected images"):
        MaxPool2d(2).build((5,))
