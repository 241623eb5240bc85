"""Conv2d and each of its algorithms against plain loops; im2col and col2im as adjoints."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layer_table import build, fits, images

from distnet.nn import Conv2d, blocking
from distnet.nn.conv import direct, winograd
from distnet.nn.conv.conv2d import ALGORITHMS, fastest_algorithm
from distnet.nn.conv.geometry import Geometry, output_size
from distnet.nn.conv.im2col import col2im, im2col
from distnet.nn.conv.winograd import transforms


def loops(x, weight, bias, dy, stride, pad):
    """y, dx, dweight and dbias by the definition, one product of numbers at a time."""
    padded = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    dpadded, dweight, y = np.zeros_like(padded), np.zeros_like(weight), np.zeros_like(dy)
    channels, kh, kw = weight.shape[1:]
    for n, f, u, v in np.ndindex(*dy.shape):
        y[n, f, u, v] = bias[f]
        for c, i, j in itertools.product(range(channels), range(kh), range(kw)):
            pixel = n, c, u * stride + i, v * stride + j
            y[n, f, u, v] += padded[pixel] * weight[f, c, i, j]
            dweight[f, c, i, j] += padded[pixel] * dy[n, f, u, v]
            dpadded[pixel] += weight[f, c, i, j] * dy[n, f, u, v]
    h, w = x.shape[2:]
    return y, dpadded[:, :, pad : pad + h, pad : pad + w], dweight, dy.sum(axis=(0, 2, 3))


def run(layer, x, dy):
    y = layer.forward(x).copy()
    return y, layer.backward(dy).copy(), layer.weight.grad, layer.bias.grad


@st.composite
def geometries(draw):
    """(channels, height, width), (kernel height, width), stride, pad; the kernel fits."""
    side = st.integers(1, 4)
    kernel = draw(st.one_of(st.just((3, 3)), st.just((5, 5)), st.tuples(side, side)))
    pad, stride = draw(st.integers(0, 3)), draw(st.integers(1, 3))
    sides = [draw(st.integers(max(1, k - 2 * pad), 7)) for k in kernel]
    return (draw(st.integers(1, 6)), *sides), kernel, stride, pad


@settings(max_examples=200)
@given(geometries(), st.sampled_from(["auto", *ALGORITHMS]), st.integers(1, 3), st.integers(0, 9))
def test_every_algorithm_equals_the_loops(geometry, algorithm, n, seed):
    shape, kernel, stride, pad = geometry
    if not fits(algorithm, kernel, stride):
        stride, kernel, pad = 1, (3, 3), max(pad, 1)  # 3 fits into 1 + 2 pad
    layer = build(Conv2d(2, kernel, stride=stride, pad=pad, algorithm=algorithm), shape)
    x, dy = images((n, *shape), seed=seed), images((n, *layer.geometry.output_shape), seed=seed + 1)
    expected = loops(x, layer.weight.value, layer.bias.value, dy, stride, pad)
    for found, value in zip(run(layer, x, dy), expected, strict=True):
        np.testing.assert_allclose(found, value, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_without_bias_equals_a_bias_of_zero(algorithm):
    with_bias, without = (
        build(Conv2d(4, 3, pad=1, bias=bias, algorithm=algorithm), (3, 6, 5))
        for bias in (True, False)
    )
    with_bias.bias.value.fill(0)
    without.weight.value[...] = with_bias.weight.value
    for layer in (with_bias, without):
        layer.refresh()
    x, dy = images((2, 3, 6, 5)), images((2, 4, 6, 5), seed=1)
    assert [name for name, _ in without.parameters()] == ["weight"]
    np.testing.assert_allclose(without.forward(x), with_bias.forward(x), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(without.backward(dy), with_bias.backward(dy), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(without.weight.grad, with_bias.weight.grad, rtol=1e-12, atol=1e-12)


# Filters, kernel, stride, pad, input shape: those of the book's networks, and larger steps.
REAL = [
    (16, 3, 1, 1, (1, 28, 28)),
    (16, 3, 1, 1, (16, 28, 28)),
    (32, 3, 1, 1, (16, 14, 14)),
    (32, 3, 1, 2, (32, 14, 14)),
    (64, 3, 1, 1, (32, 8, 8)),
    (64, 3, 1, 1, (64, 8, 8)),
    (30, 5, 1, 0, (1, 28, 28)),
    (16, 5, 1, 0, (6, 14, 14)),
    (32, 5, 1, 2, (16, 14, 14)),
    (12, 5, 2, 2, (8, 15, 11)),
]


@pytest.mark.parametrize("n", [1, 6])
@pytest.mark.parametrize(("filters", "kernel", "stride", "pad", "shape"), REAL)
def test_single_precision_at_the_sizes_of_networks(filters, kernel, stride, pad, shape, n):
    def conv(algorithm, dtype):
        options = {"stride": stride, "pad": pad, "algorithm": algorithm}
        return build(Conv2d(filters, kernel, **options), shape, dtype)

    x = images((n, *shape), np.float32)
    reference = conv("im2col", np.float64)
    dy = images((n, *reference.geometry.output_shape), np.float32, seed=1)
    expected = run(reference, x.astype(np.float64), dy.astype(np.float64))
    for algorithm in ALGORITHMS:
        if not fits(algorithm, (kernel, kernel), stride):
            continue
        for found, value in zip(run(conv(algorithm, np.float32), x, dy), expected, strict=True):
            assert found.dtype == np.float32
            error = np.abs(found - value).max() / np.abs(value).max()
            assert error < 1e-5, (algorithm, error)


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("algorithm", ["few_channels", "blocked", "winograd2", "winograd4"])
def test_blocks_of_any_size_give_the_same(algorithm, n, monkeypatch):
    """One output row, or row of tiles, at a time; then several with a shorter block at the end."""
    shape, pad = (3, 13, 9), 2

    def results():
        layer = build(Conv2d(2, 3, pad=pad, algorithm=algorithm), shape)
        dy = images((n, *layer.geometry.output_shape), seed=1)
        return [array.copy() for array in run(layer, images((n, *shape)), dy)]

    expected, row_bytes = results(), 8 * n * 36 * 9  # of a row of tiles
    for block_bytes, chunk in [(1, 1), (1, 7), (2 * row_bytes, 50), (3 * row_bytes, 4096)]:
        monkeypatch.setattr(direct, "_BLOCK_BYTES", block_bytes)
        monkeypatch.setattr(blocking, "SMALL_PRODUCT", 100 * chunk)
        monkeypatch.setattr(winograd, "_BLOCK_BYTES", block_bytes)
        monkeypatch.setattr(winograd, "_CHUNK", chunk)
        for found, value in zip(results(), expected, strict=True):
            np.testing.assert_allclose(found, value, rtol=1e-11, atol=1e-11)


@given(geometries())
def test_the_automatic_choice_fits(geometry):
    (c, h, w), kernel, stride, pad = geometry
    algorithm = fastest_algorithm(Geometry(c, h, w, 4, *kernel, stride, pad))
    assert algorithm in ALGORITHMS
    assert fits(algorithm, kernel, stride)


def test_it_is_a_correlation_with_filters_as_they_are_stored():
    layer = build(Conv2d(1, (2, 3)), (1, 2, 3))
    layer.weight.value[...] = np.arange(6).reshape(1, 1, 2, 3)
    layer.bias.value[...] = 0.5
    layer.refresh()
    x = np.zeros((1, 1, 2, 3))
    x[0, 0, 1, 2] = 1  # a flipped kernel would find its first element here
    assert layer.forward(x).item() == 5.5


# im2col, book section 7.4.


@pytest.mark.parametrize("n", [1, 10])
def test_im2col_has_the_shape_of_the_book(n):
    assert im2col(np.zeros((n, 3, 7, 7)), (5, 5), 1).shape == (9 * n, 75)


def test_a_row_of_im2col_is_a_window():
    x = images((2, 3, 6, 5))
    columns = im2col(x, (2, 3), 2)
    np.testing.assert_array_equal(columns[0], x[0, :, 0:2, 0:3].ravel())
    np.testing.assert_array_equal(columns[-1], x[1, :, 4:6, 2:5].ravel())
    assert im2col(x.astype(np.float32), (2, 3), 2).dtype == np.float32


@given(geometries(), st.integers(1, 3), st.integers(0, 9))
def test_col2im_is_the_adjoint_of_im2col(geometry, n, seed):
    (c, h, w), kernel, stride, pad = geometry
    x = images((n, c, h + 2 * pad, w + 2 * pad), seed=seed)
    columns = im2col(x, kernel, stride)
    other = images(columns.shape, seed=seed + 1)
    back = col2im(other, np.full(x.shape, np.nan), kernel, stride)
    assert np.vdot(columns, other) == pytest.approx(np.vdot(x, back), rel=1e-12, abs=1e-12)


@pytest.mark.parametrize(("m", "k"), [(2, 3), (4, 3), (2, 5)])
def test_winograd_computes_m_outputs_of_k_taps(m, k):
    bt, g, at = transforms(m, k)
    d, taps = images((1, m + k - 1))[0], images((1, k), seed=1)[0]
    found = at @ ((g @ taps) * (bt @ d))
    np.testing.assert_allclose(found, np.correlate(d, taps, "valid"), atol=1e-14)


@pytest.mark.parametrize(("m", "k"), [(4, 3), (2, 5)])
def test_the_points_round_less_than_the_usual_ones(m, k, monkeypatch):
    shape, pad = (32, 12, 12), k // 2
    x, dy = (images((4, *shape), np.float32, seed=seed) for seed in (0, 1))

    def results(algorithm, dtype):
        layer = build(Conv2d(32, k, pad=pad, algorithm=algorithm), shape, dtype)
        return [array.copy() for array in run(layer, x.astype(dtype), dy.astype(dtype))][:3]

    def errors():
        found = results(f"winograd{m}", np.float32)
        return [np.abs(a - b).max() for a, b in zip(found, expected, strict=True)]

    expected = results("im2col", np.float64)
    ours = errors()
    monkeypatch.setitem(winograd._POINTS, 6, (0, 1, -1, 2, -2))
    assert all(a < 0.8 * b for a, b in zip(ours, errors(), strict=True))


# Sizes and errors.


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "pad", "expected"),
    [(7, 3, 2, 0, 3), (28, 5, 3, 2, 10), (31, 5, 3, 2, 11), (28, 5, 1, 0, 24), (4, 4, 1, 0, 1)],
)
def test_output_size(size, kernel, stride, pad, expected):
    assert output_size(size, kernel, stride, pad) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernel": 5}, "a kernel of 5 does not fit into 4 pixels with padding 0"),
        ({"kernel": 7, "pad": 1}, "a kernel of 7 does not fit into 4 pixels with padding 1"),
        ({"kernel": 0}, "kernel 0"),
        ({"kernel": 3, "stride": 0}, "stride 0"),
        ({"kernel": 3, "pad": -1}, "pad -1"),
        ({"kernel": 3, "filters": 0}, "found filters 0"),
        ({"kernel": 3, "init": "best"}, "'best'"),
        ({"kernel": 3, "algorithm": "fft"}, "'fft'"),
        ({"kernel": 3, "algorithm": "winograd4", "stride": 2}, "kernel 3 x 3 and stride 2"),
        ({"kernel": 1, "algorithm": "winograd2"}, "kernel 1 x 1 and stride 1"),
    ],
)
def test_impossible_geometries_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Conv2d(**{"filters": 2, **options}).build((3, 4, 4))
