"""Images of another size: beside Pillow, exact in whole numbers, and flat where they were flat."""

import numpy as np
import pytest

from distnet.data.resize import _weights, resized

SIZES = [(28, 28, 32, 32), (28, 28, 224, 224), (28, 28, 14, 14), (9, 30, 13, 7), (32, 32, 8, 100)]


def images(shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


@pytest.mark.parametrize(("h", "w", "height", "width"), SIZES)
def test_close_to_pillow(h, w, height, width):
    """Its weights are finer: three grey values at most, and less than half of one on average."""
    image = pytest.importorskip("PIL.Image", reason="compares with Pillow, the extra `images`")
    (pixels,) = images((1, h, w))
    bilinear = image.Resampling.BILINEAR
    expected = np.asarray(image.fromarray(pixels).resize((width, height), bilinear))
    found = resized(pixels[None, None], height, width)[0, 0]
    difference = np.abs(found.astype(int) - expected)
    assert difference.max() <= 3 and difference.mean() < 0.5


@pytest.mark.parametrize(("h", "w", "height", "width"), SIZES)
def test_bytes_are_exact(h, w, height, width):
    """As the same sums in integers give them."""
    x = images((2, 3, h, w))
    rows, columns = (_weights(*sizes).astype(np.int64) for sizes in ((h, height), (w, width)))
    sums = np.einsum("Hh,Ww,nchw->ncHW", rows, columns, x.astype(np.int64))
    quotient, rest = np.divmod(sums, 1 << 16)
    half = rest == 1 << 15
    rounded = quotient + ((rest > 1 << 15) | (half & (quotient % 2 == 1)))
    found = resized(x, height, width)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, rounded)


@pytest.mark.parametrize("value", [0, 1, 128, 255])
def test_flat_images_stay_flat(value):
    x = np.full((1, 1, 28, 28), value, np.uint8)
    for size in (1, 13, 32, 100):
        np.testing.assert_array_equal(resized(x, size, size), value)


def test_the_same_size_changes_nothing():
    x = images((2, 3, 8, 9))
    np.testing.assert_array_equal(resized(x, 8, 9), x)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_floats_are_not_rounded(dtype):
    x = images((2, 3, 10, 12))
    found = resized((x / 255).astype(dtype), 16, 7)
    assert found.dtype == dtype
    assert len(np.unique(found)) > 600
    np.testing.assert_allclose(found * 255, resized(x, 16, 7), atol=0.51)


def test_shrinking_is_without_moire():
    """A checkerboard becomes grey."""
    board = np.indices((32, 32)).sum(axis=0) % 2 * np.uint8(255)
    found = resized(board[None, None].astype(np.uint8), 8, 8)
    assert np.abs(found[..., 1:-1, 1:-1].astype(int) - 127).max() <= 2
