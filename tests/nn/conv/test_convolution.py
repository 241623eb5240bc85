"""Conv2d and each of its algorithms against plain loops; im2col and col2im as adjoints."""

import itertools
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layer_table import build, fits, images

from distnet.nn import Conv2d, Network, blocking
from distnet.nn.conv import blocked, winograd, winograd_tiles, winograd_transforms
from distnet.nn.conv.choice import ALGORITHMS, fastest_algorithm
from distnet.nn.conv.geometry import Geometry, output_size
from distnet.nn.conv.im2col import col2im, im2col
from distnet.nn.conv.winograd_transforms import transforms

DENSE = [name for name in ALGORITHMS if name != "depthwise"]  # for all filters on all channels


def loops(x, weight, bias, dy, g):
    """y, dx, dweight and dbias by the definition, one product of numbers at a time."""
    (sh, sw), (dh, dw), (top, left) = g.stride, g.dilation, g.pad
    padded = np.pad(x, ((0, 0), (0, 0), (top, top), (left, left)))
    dpadded, dweight, y = np.zeros_like(padded), np.zeros_like(weight), np.zeros_like(dy)
    of_group, filters = weight.shape[1], g.f // g.groups
    for n, f, u, v in np.ndindex(*dy.shape):
        y[n, f, u, v] = bias[f]
        for c, i, j in itertools.product(range(of_group), range(g.kh), range(g.kw)):
            pixel = n, f // filters * of_group + c, u * sh + i * dh, v * sw + j * dw
            y[n, f, u, v] += padded[pixel] * weight[f, c, i, j]
            dweight[f, c, i, j] += padded[pixel] * dy[n, f, u, v]
            dpadded[pixel] += weight[f, c, i, j] * dy[n, f, u, v]
    return y, g.interior(dpadded), dweight, dy.sum(axis=(0, 2, 3))


def run(layer, x, dy):
    y = layer.forward(x).copy()
    return y, layer.backward(dy).copy(), layer.weight.grad, layer.bias.grad


@st.composite
def geometries(draw):
    """Small geometries of all kinds, of which those that Winograd takes are frequent."""
    side = st.integers(1, 4)
    kernel = draw(st.one_of(st.just((3, 3)), st.just((5, 5)), st.tuples(side, side)))
    pad = draw(st.one_of(st.integers(0, 3).map(lambda p: (p, p)), st.tuples(side, side)))
    stride = draw(st.one_of(st.just((1, 1)), st.tuples(st.integers(1, 3), st.integers(1, 3))))
    dilation = draw(st.sampled_from([(1, 1), (1, 1), (2, 1), (1, 3), (2, 2)]))
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    extents = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    sides = [
        draw(st.integers(max(1, e - 2 * p), max(7, e))) for e, p in zip(extents, pad, strict=True)
    ]
    c, f = groups * draw(st.integers(1, 6 // groups)), groups * draw(st.integers(1, 2))
    return Geometry(c, *sides, f, kernel, stride, pad, dilation, groups)


def layer_of(g, algorithm, dtype=np.float64):
    layer = Conv2d(
        g.f,
        g.kernel,
        stride=g.stride,
        pad=g.pad,
        dilation=g.dilation,
        groups=g.groups,
        algorithm=algorithm,
    )
    return build(layer, (g.c, g.h, g.w), dtype)


def batch(g, n, seed):
    return images((n, g.c, g.h, g.w), seed=seed), images((n, *g.output_shape), seed=seed + 1)


@settings(max_examples=200)
@given(geometries(), st.integers(1, 3), st.integers(0, 9))
def test_the_reference_equals_the_loops(g, n, seed):
    layer, (x, dy) = layer_of(g, "im2col"), batch(g, n, seed)
    expected = loops(x, layer.weight.value, layer.bias.value, dy, g)
    for found, value in zip(run(layer, x, dy), expected, strict=True):
        np.testing.assert_allclose(found, value, rtol=1e-11, atol=1e-11)


@settings(max_examples=400)
@given(geometries(), st.integers(1, 3), st.integers(0, 9))
def test_every_algorithm_equals_the_reference(g, n, seed):
    x, dy = batch(g, n, seed)
    reference = run(layer_of(g, "im2col"), x, dy)
    for algorithm in ["auto", *ALGORITHMS]:
        if algorithm == "auto" or fits(algorithm, **options_of(g)):
            for found, value in zip(run(layer_of(g, algorithm), x, dy), reference, strict=True):
                np.testing.assert_allclose(found, value, rtol=1e-11, atol=1e-11)


def options_of(g):
    names = ("kernel", "stride", "pad", "dilation", "groups")
    return {name: getattr(g, name) for name in names} | {"channels": g.c, "filters": g.f}


@given(geometries(), st.sampled_from(sorted(ALGORITHMS)))
def test_an_algorithm_says_what_suits_it(g, algorithm):
    assert ALGORITHMS[algorithm].suits(g) == fits(algorithm, **options_of(g))


@pytest.mark.parametrize("algorithm", DENSE)
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


def test_groups_equal_a_convolution_for_each():
    """AlexNet's two halves: channels and filters side by side, that never meet."""
    grouped = build(Conv2d(6, 3, pad=1, groups=2), (8, 7, 5))
    assert grouped.weight.shape == (6, 4, 3, 3)
    x = images((2, 8, 7, 5))
    for half, y in enumerate(np.split(grouped.forward(x).copy(), 2, axis=1)):
        alone = build(Conv2d(3, 3, pad=1), (4, 7, 5))
        filters = slice(3 * half, 3 * half + 3)
        alone.weight.value[...] = grouped.weight.value[filters]
        alone.bias.value[...] = grouped.bias.value[filters]
        alone.refresh()
        part = alone.forward(x[:, 4 * half : 4 * half + 4])
        np.testing.assert_allclose(y, part, rtol=1e-11, atol=1e-11)


def test_the_weights_of_groups_start_with_the_deviation_of_what_a_filter_sees():
    layer = Conv2d(64, 3, pad=1, groups=4)
    net = Network([layer], (64, 5, 5))
    assert net.parameters.values.size == layer.weight.value.size + 64
    assert layer.weight.value.std() == pytest.approx((2 / (16 * 9)) ** 0.5, rel=0.05)


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
    (12, 7, 1, 3, (16, 14, 13)),
    (24, 4, 2, 1, (16, 12, 16)),
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
        if not fits(algorithm, kernel, stride, pad):
            continue
        for found, value in zip(run(conv(algorithm, np.float32), x, dy), expected, strict=True):
            assert found.dtype == np.float32
            error = np.abs(found - value).max() / np.abs(value).max()
            assert error < 1e-5, (algorithm, error)


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("algorithm", [name for name in DENSE if name != "im2col"])
def test_blocks_of_any_size_give_the_same(algorithm, n, monkeypatch):
    """One output row, or row of tiles, at a time; then several with a shorter block at the end."""
    shape, pad = (3, 13, 9), 2

    def results():
        layer = build(Conv2d(2, 3, pad=pad, algorithm=algorithm), shape)
        dy = images((n, *layer.geometry.output_shape), seed=1)
        return [array.copy() for array in run(layer, images((n, *shape)), dy)]

    expected, row_bytes = results(), 8 * n * 36 * 9  # of a row of tiles
    for block_bytes, chunk in [(1, 1), (1, 7), (2 * row_bytes, 50), (3 * row_bytes, 4096)]:
        monkeypatch.setattr(blocked, "_BLOCK_BYTES", block_bytes)
        monkeypatch.setattr(blocked, "_BLOCK_PIXELS", 1)
        monkeypatch.setattr(blocking, "SMALL_PRODUCT", 100 * chunk)
        monkeypatch.setattr(winograd_tiles, "_BLOCK_BYTES", block_bytes)
        monkeypatch.setattr(winograd_tiles, "_CHUNK", chunk)
        for found, value in zip(results(), expected, strict=True):
            np.testing.assert_allclose(found, value, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("shape", [(3, 3, 5, 2), (3, 3, 65, 129), (257, 130, 1, 1), (64, 1), (1,)])
def test_copies_in_squares_are_copies(shape):
    source = np.random.default_rng(0).standard_normal(shape)
    out = np.empty(shape[::-1]).transpose()
    blocking.copy_in_squares(source, out)
    np.testing.assert_array_equal(out, source)


@given(geometries())
def test_the_automatic_choice_fits(g):
    assert fits(fastest_algorithm(g), **options_of(g))


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "pad", "algorithm"),
    [
        (28, 3, 1, 1, "winograd4"),
        (2, 3, 1, 1, "winograd2"),
        (28, 5, 1, 2, "winograd2"),
        (28, 5, 2, 2, "winograd_parts"),
        (16, 4, 2, 1, "winograd_parts"),
        (28, 7, 1, 3, "winograd_parts"),
        (56, 3, 2, 1, "blocked"),
        (28, 1, 2, 0, "blocked"),
    ],
)
def test_it_takes_what_multiplies_least(size, kernel, stride, pad, algorithm):
    pairs = [(each, each) for each in (kernel, stride, pad)]
    assert fastest_algorithm(Geometry(64, size, size, 64, *pairs)) == algorithm
    few = fastest_algorithm(Geometry(3, size, size, 64, *pairs))
    assert few == "few_channels"


def test_a_filter_for_each_channel_is_no_product_of_matrices():
    pairs = [(3, 3), (2, 2), (1, 1), (1, 1)]
    assert fastest_algorithm(Geometry(64, 28, 28, 64, *pairs, groups=64)) == "depthwise"
    assert fastest_algorithm(Geometry(64, 28, 28, 128, *pairs, groups=64)) == "blocked"


def test_few_images_of_many_channels_are_multiplied_directly():
    """And a batch of another size in between changes nothing."""
    shape = (256, 4, 4)
    layer, reference = (
        build(Conv2d(256, 3, pad=1, algorithm=name), shape) for name in ("auto", "im2col")
    )
    for n, expected in [(2, "BlockedConvolution"), (17, "Winograd4"), (2, "BlockedConvolution")]:
        x, dy = images((n, *shape)), images((n, *shape), seed=1)
        for found, value in zip(run(layer, x, dy), run(reference, x, dy), strict=True):
            np.testing.assert_allclose(found, value, rtol=1e-9, atol=1e-9)
        assert type(layer.current).__name__ == expected


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
    assert im2col(np.zeros((n, 3, 7, 7)), (5, 5)).shape == (9 * n, 75)


def test_a_row_of_im2col_is_a_window():
    x = images((2, 3, 6, 5))
    columns = im2col(x, (2, 3), (2, 2))
    np.testing.assert_array_equal(columns[0], x[0, :, 0:2, 0:3].ravel())
    np.testing.assert_array_equal(columns[-1], x[1, :, 4:6, 2:5].ravel())
    assert im2col(x.astype(np.float32), (2, 3)).dtype == np.float32


@given(geometries(), st.integers(1, 3), st.integers(0, 9))
def test_col2im_is_the_adjoint_of_im2col(g, n, seed):
    x = images((n, g.c, *g.padded_size), seed=seed)
    columns = im2col(x, g.kernel, g.stride, g.dilation)
    other = images(columns.shape, seed=seed + 1)
    back = col2im(other, np.full(x.shape, np.nan), g.kernel, g.stride, g.dilation)
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
    monkeypatch.setitem(winograd_transforms.POINTS, 6, (0, 1, -1, 2, -2))
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
        ({"kernel": 3, "filters": 0}, "filters 0"),
        ({"kernel": 3, "dilation": 0}, "dilation 0"),
        ({"kernel": 3, "groups": 0}, "groups 0"),
        ({"kernel": 3, "groups": 2}, "found 3 in and 2 out in 2 groups"),
        ({"kernel": (3, 3, 3)}, "kernel (3, 3, 3)"),
        ({"kernel": 3, "stride": 1.5}, "stride 1.5"),
        ({"kernel": 2, "dilation": 4}, "a kernel of 2 4 apart does not fit into 4 pixels"),
        ({"kernel": 3, "init": "best"}, "'best'"),
        ({"kernel": 3, "algorithm": "fft"}, "'fft'"),
        ({"kernel": 3, "algorithm": "winograd4", "stride": 2}, "kernel (3, 3), stride (2, 2)"),
        ({"kernel": 1, "algorithm": "winograd2"}, "kernel (1, 1), stride (1, 1)"),
        ({"kernel": 3, "algorithm": "winograd2", "pad": (1, 0)}, "expects one group, stride 1,"),
        ({"kernel": 3, "algorithm": "few_channels", "dilation": 2, "pad": 1}, "expects one group"),
    ],
)
def test_impossible_geometries_are_refused(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        Conv2d(**{"filters": 2, **options}).build((3, 4, 4))


@pytest.mark.parametrize("algorithm", ["winograd2", "winograd4", "winograd_parts"])
@pytest.mark.parametrize("block_bytes", [1, 10**9])
def test_gradients_of_large_filters_are_transformed_in_slices(monkeypatch, algorithm, block_bytes):
    """Of 5 channels 2, 2 and 1 at a time; all at once where there are several blocks of tiles."""
    g = Geometry(5, 9, 9, 3, (3, 3), pad=(1, 1))
    monkeypatch.setattr(winograd, "_LARGE_BYTES", 0)
    monkeypatch.setattr(winograd, "_SLICE", 2)
    monkeypatch.setattr(winograd_tiles, "_BLOCK_BYTES", block_bytes)
    x, dy = images((4, 5, 9, 9)), images((4, 3, 9, 9), seed=1)
    found = run(layer_of(g, algorithm), x, dy)
    expected = run(layer_of(g, "im2col"), x, dy)
    for each, plain in zip(found, expected, strict=True):
        np.testing.assert_allclose(each, plain, atol=1e-10)
