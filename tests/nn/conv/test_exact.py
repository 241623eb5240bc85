"""On grids every algorithm of Conv2d returns the exact sums, bit for bit, also at the limit.

The reference is im2col, whose sums are compared with those of Python's whole numbers.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layer_table import build, fits, images
from test_convolution import geometries, loops

from distnet.base.arithmetic import Portable
from distnet.nn import Conv2d, Dropout, MaxPool2d, MicroBatch, Network
from distnet.nn.conv.choice import ALGORITHMS, PORTABLE, fastest_algorithm
from distnet.nn.conv.exact_winograd import growth
from distnet.nn.conv.geometry import Geometry
from distnet.nn.conv.winograd_transforms import EXACT_POINTS, transforms

RESULTS = ("y", "dx", "dweight", "dbias")


def conv(g, algorithm, bits=12):
    options = {"stride": g.stride, "pad": g.pad, "dilation": g.dilation, "groups": g.groups}
    layer = Conv2d(g.f, g.kernel, algorithm=algorithm, **options)
    return build(layer, (g.c, g.h, g.w), np.float32, arithmetic=Portable(bits))


def results(layer, x, dy, at=None):
    y = layer.forward(x, at=at).copy()
    dx = layer.backward(dy).copy()
    grads = layer.weight.grad.copy(), layer.bias.grad.copy()
    return [np.ascontiguousarray(array) + 0.0 for array in (y, dx, *grads)]


def assert_all_equal(g, x, dy, weight=None, bits=12):
    reference = conv(g, "im2col", bits)
    names = [n for n in PORTABLE if PORTABLE[n].suits(g) and PORTABLE[n].fits(g, bits)]
    if weight is not None:
        reference.weight.value[...] = weight
    expected = results(reference, x, dy)
    for name in names[1:]:
        layer = conv(g, name, bits)
        layer.weight.value[...] = reference.weight.value
        for at in (None, MicroBatch()):  # in training some keep what they have transformed
            for what, found, exact in zip(
                RESULTS, results(layer, x, dy, at), expected, strict=True
            ):
                assert found.tobytes() == exact.tobytes(), f"{name}: {what}"
    return names


@settings(max_examples=30)
@given(geometries(), st.integers(1, 2), st.integers(0, 9), st.sampled_from([5, 12, 14]))
def test_the_reference_is_the_sum_of_whole_numbers(g, n, seed, bits):
    layer = conv(g, "im2col", bits)
    x, dy = images((n, g.c, g.h, g.w), seed=seed), images((n, *g.output_shape), seed=seed + 1)
    found = results(layer, x, dy)
    w = layer.memory.constant("w", layer.weight.shape, np.float64)
    on_grids = layer.operand(x).copy(), w, layer.operand(dy).copy()
    unit = 2.0**-24  # of which all of them are multiples; products and sums are below 2^62
    x, w, dy = ((array / unit).astype(np.int64) for array in on_grids)
    y, dx, dweight, dbias = loops(x, w, np.zeros(g.f, np.int64), dy, g)
    row = layer.memory.array("bias", (n, g.ow * g.f), np.float64)  # what was added to each pixel
    found[0] -= row.reshape(g.ow, n, g.f)[0, 0][:, None, None]
    for array, whole in zip(found, (y, dx, dweight, dbias * round(1 / unit)), strict=True):
        assert (array / unit**2 == whole).all()
        assert ((array / unit**2).astype(np.int64) == whole).all()


@settings(max_examples=150)
@given(geometries(), st.integers(1, 3), st.integers(0, 9), st.sampled_from([4, 9, 12, 14]))
def test_all_algorithms_return_the_same_bits(g, n, seed, bits):
    x, dy = images((n, g.c, g.h, g.w), seed=seed), images((n, *g.output_shape), seed=seed + 1)
    assert_all_equal(g, x, dy, bits=bits)


def test_the_usual_points_would_not():
    """So the comparison can fail: with 1/2 and -2 the last bits differ."""
    g, x = Geometry(16, 12, 12, 16, (3, 3), pad=(1, 1)), images((4, 16, 12, 12))
    dy, reference, layer = images((4, 16, 12, 12), seed=1), conv(g, "im2col"), conv(g, "winograd4")
    layer._compute_by(ALGORITHMS["winograd4"])
    layer.memory = type(layer.memory)()
    pairs = zip(results(layer, x, dy), results(reference, x, dy), strict=True)
    assert [(found == expected).all() for found, expected in pairs][:3] == [False] * 3


def signs(row):
    return np.where(np.asarray(row) < 0, -1.0, 1.0)


def tiled(pattern, shape, m):
    """Images in which each tile of r x r pixels, m apart, has this pattern as far as it can."""
    period = pattern[:m, :m]
    h, w = shape[2:]
    image = np.tile(period, (-(-h // m), -(-w // m)))[:h, :w]
    return np.broadcast_to(image, shape).copy()


# Channels, filters, images; sums of as many channels, filters and tiles as one is likely to meet.
LARGE = [(512, 6, 12, 2), (6, 512, 12, 2), (5, 5, 24, 256)]


@pytest.mark.parametrize(("c", "f", "side", "n"), LARGE)
@pytest.mark.parametrize("algorithm", ["winograd2", "winograd4"])
def test_operands_at_the_limit_with_aligned_signs(algorithm, c, f, side, n):
    """All magnitudes are the largest odd ones, and add up in one point of the transforms."""
    g = Geometry(c, side, side, f, (3, 3), pad=(1, 1))
    m, bits = PORTABLE[algorithm].m, 12
    bt, on_axis, at = transforms(m, 3, EXACT_POINTS[m + 2])
    largest = 1 - 2.0**-bits  # all bits set
    for i in (1, len(bt) - 2) if n < 100 else (1,):
        pixels = largest * tiled(np.outer(signs(bt[i]), signs(bt[i])), (n, c, side, side), m)
        filters = largest * np.outer(signs(on_axis[i]), signs(on_axis[i]))
        gradient = largest * tiled(
            np.outer(signs(at[:, i]), signs(at[:, i])), (n, f, side, side), m
        )
        weight = np.broadcast_to(9 * filters, g.weight_shape)
        found, expected = conv(g, algorithm, bits), conv(g, "blocked", bits)
        found.weight.value[...] = expected.weight.value[...] = weight
        pairs = zip(
            results(found, pixels, gradient), results(expected, pixels, gradient), strict=True
        )
        for name, (left, right) in zip(RESULTS, pairs, strict=True):
            assert left.tobytes() == right.tobytes(), name


@pytest.mark.parametrize("bits", [12, 13, 14])
def test_the_sum_over_tiles_is_cut_where_it_has_to_be(bits):
    g = Geometry(6, 24, 24, 5, (3, 3), pad=(1, 1))
    n = 120
    layer = conv(g, "winograd4", bits)
    number_of_sums = len(layer._algorithm(n).sums)
    assert number_of_sums == {12: 1, 13: 1, 14: 2}[bits]
    x, dy = images((n, 6, 24, 24)), images((n, 5, 24, 24), seed=1)
    expected = results(conv(g, "blocked", bits), x, dy)
    for found, exact in zip(results(layer, x, dy), expected, strict=True):
        assert found.tobytes() == exact.tobytes()


def test_what_one_sum_over_tiles_adds_to_another_is_exact():
    """Also where the upper half of dU takes the filters' gradient beyond a power of two."""
    computing = conv(Geometry(1, 4, 4, 1, (3, 3), pad=(1, 1)), "winograd4")._algorithm(1)
    bt, _, at = (np.rint(matrix).astype(np.int64) for matrix in of(4, 3))
    rng, pixel, gradient = np.random.default_rng(0), np.zeros((6, 6), int), np.zeros((4, 4), int)
    pixel[1, 1] = 1  # so that only the first element of the filter has a gradient
    for _ in range(300):  # of which some do
        x, dy = rng.integers(-(2**13), 2**13, (6, 6)), rng.integers(-(2**9), 2**9, (4, 4))
        exact = [9 * (x[i : i + 4, j : j + 4] * dy).sum() for i in range(3) for j in range(3)]
        first = 2**51 - 1 - exact[0]
        first -= first % 9
        gradient[1, 1] = first // 9
        views = SimpleNamespace(rest=[np.empty(36), np.empty(9)], filters=np.empty(9))
        for pixels, gradients in ((pixel, gradient), (x, dy)):
            v, dm = bt @ pixels @ bt.T, at.T @ gradients @ at
            views.du = (v * dm).reshape(36, 1, 1).astype(np.float64)
            computing._add_filter_gradient(views, is_first=pixels is pixel)
        assert views.filters.tolist() == [first + exact[0], *exact[1:]]


def test_more_tiles_at_a_time_than_can_be_summed_are_refused():
    layer = conv(Geometry(6, 8, 256, 5, (3, 3), pad=(1, 1)), "winograd4", 14)
    with pytest.raises(
        ValueError, match=r"found 6,400 tiles to be added up at a time, expected at"
    ):
        layer.forward(np.zeros((100, 6, 8, 256)))


def test_growth_is_that_of_all_paths():
    """By going along each of them: a pixel and an element of a filter, to a point, to an output."""
    bt, on_axis, at = (
        np.rint(f * matrix).astype(int) for f, matrix in zip((1, 24, 1), of(4, 3), strict=True)
    )
    lengths = []
    for a in range(4):
        paths = at[a][:, None, None] * bt[:, :, None] * on_axis[:, None, :]  # (i, pixel, element)
        used = np.abs(paths[paths != 0])
        lengths.append(used.sum() / (used & -used).min())
    assert growth(4, 3).forward == max(lengths) ** 2
    of_points = np.abs(at.T[:, :, None] * bt[:, None, :]).reshape(6, -1)
    units = [(row & -row)[row != 0].min() for row in of_points]
    assert growth(4, 3).tiles == (of_points.sum(axis=1) / units).max() ** 2


def of(m, k):
    return transforms(m, k, EXACT_POINTS[m + k - 1])


@given(geometries(), st.integers(4, 16))
def test_the_choice_fits(g, bits):
    name = fastest_algorithm(g, Portable(bits))
    options = {"stride": g.stride, "pad": g.pad, "dilation": g.dilation, "groups": g.groups}
    assert fits(name, g.kernel, **options)
    assert PORTABLE[name].fits(g, bits)


@pytest.mark.parametrize(
    ("bits", "expected"), [(12, "winograd4"), (14, "winograd4"), (15, "winograd2")]
)
def test_more_bits_leave_fewer_algorithms(bits, expected):
    g = Geometry(64, 14, 14, 64, (3, 3), pad=(1, 1))
    assert fastest_algorithm(g, Portable(bits)) == expected
    if bits == 15:
        with pytest.raises(
            ValueError, match="found algorithm winograd4 with 64 channels, 64 filte"
        ):
            conv(g, "winograd4", bits)


def test_pooled_convolutions_return_the_same_bits_as_apart():
    """Ties between pixels go the same way, and the bias comes after the maximum."""

    def trained(algorithm, apart):
        between = [Dropout(0)] if apart else []  # which changes nothing
        layers = [Conv2d(6, 3, pad=1, algorithm=algorithm), *between, MaxPool2d(2)]
        network = Network(layers, (5, 8, 8), arithmetic=Portable(5))  # few bits: many ties
        network.parameters.values[...] = np.random.default_rng(0).uniform(-1, 1, 276)
        network.parameters.refresh()
        assert len(network.body.stages) == (3 if apart else 2 if algorithm == "im2col" else 1)
        y = network.forward(images((3, 5, 8, 8)), MicroBatch()).copy()
        network.backward(images(y.shape, seed=1))
        return y.tobytes(), (network.parameters.grads + 0.0).tobytes()

    expected = trained("im2col", apart=False)
    for algorithm in ("few_channels", "winograd2", "winograd4"):
        for apart in (True, False):
            assert trained(algorithm, apart) == expected, (algorithm, apart)
