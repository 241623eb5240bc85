"""The Gram matrix by hand, and what it does not see."""

from __future__ import annotations

import numpy as np
import pytest
from layer_table import build, images

from distnet.nn import GramMatrix


def test_the_book_of_products_by_hand():
    x = np.array([[[[1.0, 2.0]], [[3.0, -1.0]]]])  # one image, two channels, 1 x 2 pixels
    gram = build(GramMatrix(), x.shape[1:])
    np.testing.assert_array_equal(gram.forward(x), [[2.5, 0.5, 0.5, 5.0]])


def test_it_is_the_same_wherever_the_pixels_lie_and_however_many_copies_there_are():
    x = images((2, 3, 4, 5))
    expected = build(GramMatrix(), x.shape[1:]).forward(x)
    order = np.random.default_rng(1).permutation(20)
    moved = x.reshape(2, 3, 20)[:, :, order].reshape(2, 3, 2, 10)
    twice = np.concatenate([x, x], axis=2)
    for other in (moved, twice):
        found = build(GramMatrix(), other.shape[1:]).forward(other)
        np.testing.assert_allclose(found, expected, rtol=1e-13)


def test_vectors_are_refused():
    with pytest.raises(ValueError, match="GramMatrix: found input shape"):
        build(GramMatrix(), (7,))
