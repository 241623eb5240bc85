"""Resize: Pillow's and PyTorch's pixels, flat where they were flat, and shrinking without moiré."""

from fractions import Fraction

import numpy as np
import pytest
from layer_table import build, images

from distnet.base.resampling import scaling
from distnet.nn import Resize

SIZES = [(28, 28, 32, 32), (28, 28, 224, 224), (28, 28, 14, 14), (9, 30, 13, 7), (32, 32, 8, 100)]
in_all_sizes = pytest.mark.parametrize(("h", "w", "new_h", "new_w"), SIZES)


def resized(x, *size):
    return build(Resize(size), x.shape[1:]).forward(x)


@in_all_sizes
def test_pixels_are_those_of_pillow(h, w, new_h, new_w):
    """Floats, which Pillow does not round."""
    image = pytest.importorskip("PIL.Image", reason="Pillow is an extra")
    pixels = np.random.default_rng(0).random((h, w)).astype(np.float32)
    picture = image.fromarray(pixels).resize((new_w, new_h), image.Resampling.BILINEAR)
    found = resized(pixels[None, None].astype(np.float64), new_h, new_w)[0, 0]
    np.testing.assert_allclose(found, np.asarray(picture), atol=1e-6)


@in_all_sizes
def test_pixels_are_those_of_pytorch(h, w, new_h, new_w):
    torch = pytest.importorskip("torch", reason="compares with PyTorch, the extra `torch`")
    x = images((2, 3, h, w))
    there = torch.from_numpy(np.ascontiguousarray(x))
    expected = torch.nn.functional.interpolate(
        there, (new_h, new_w), mode="bilinear", antialias=True, align_corners=False
    )
    np.testing.assert_allclose(resized(x, new_h, new_w), expected.numpy(), atol=1e-12)


@in_all_sizes
def test_backward_is_the_adjoint_and_constants_stay(h, w, new_h, new_w):
    layer, x = build(Resize((new_h, new_w)), (2, h, w)), images((3, 2, h, w))
    y = layer.forward(x)
    dy = images(y.shape, seed=1)
    assert y.shape == (3, 2, new_h, new_w)
    assert np.vdot(y, dy) == pytest.approx(np.vdot(x, layer.backward(dy)))
    np.testing.assert_allclose(layer.forward(np.ones_like(x)), 1, rtol=1e-14)


def test_the_same_size_changes_nothing():
    x = images((2, 3, 8, 9))
    np.testing.assert_array_equal(resized(x, 8, 9), x)


def test_shrinking_is_without_moire():
    """A checkerboard becomes grey."""
    board = np.indices((32, 32)).sum(axis=0) % 2.0
    found = resized(board[None, None], 8, 8)
    assert np.abs(found[..., 1:-1, 1:-1] - 0.5).max() < 0.01


@pytest.mark.parametrize("size", [0, (3, 0), 2.5, "a", (1, 2, 3)])
def test_other_sizes_are_refused(size):
    with pytest.raises(ValueError, match=r"Resize: found size .*, expected a whole number"):
        Resize(size)


def test_weights_are_divided_by_their_exact_sum():
    """Which has no order, as that of NumPy has."""
    old, new = 97, 31
    centres = (np.arange(new)[:, None] + 0.5) * old / new
    weights = np.maximum(0, 1 - np.abs(np.arange(old) + 0.5 - centres) / (old / new))
    sums = [[float(sum(map(Fraction, row)))] for row in weights.tolist()]
    np.testing.assert_array_equal(scaling(old, new), weights / sums)
