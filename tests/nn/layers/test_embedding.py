"""Embedding: rows of a table, and their gradients."""

from __future__ import annotations

import numpy as np
import pytest
from layer_table import build, images

from distnet.nn import Embedding, Network


def test_words_are_rows_and_their_gradients_add_up():
    layer = build(Embedding(5, 3), (4,))
    x = np.array([[0.0, 4, 4, 2], [4, 1, 0, 2]])
    one_hot = np.eye(5)[x.astype(int)]  # (N, T, V)
    np.testing.assert_array_equal(layer.forward(x), one_hot @ layer.weight.value)
    dy = images((2, 4, 3), seed=1)
    dx = layer.backward(dy)
    np.testing.assert_allclose(layer.weight.grad, np.einsum("ntv,ntd->vd", one_hot, dy))
    assert dx.shape == x.shape and not dx.any()
    assert not layer.weight.grad[3].any()


def test_padding_is_a_zero_that_stays():
    network = Network([Embedding(4, 3, padding=2)], (3,), seed=1)
    weight = network.parameters.named()["embedding1.weight"]
    assert not weight[2].any() and weight[[0, 1, 3]].all()
    x = np.array([[2, 0, 2]], np.float32)
    y = network.forward(x)
    assert not y[0, [0, 2]].any()
    network.backward(np.ones_like(y))
    np.testing.assert_array_equal(network.parameters.grads.reshape(4, 3).sum(axis=1), [3, 0, 0, 0])
    weight[2] = 7
    assert not network.forward(x)[0, [0, 2]].any()


def test_how_it_starts():
    weight = Network([Embedding(100, 40, init=0.5)], (1,)).parameters.values
    assert weight.std() == pytest.approx(0.5, rel=0.03)


@pytest.mark.parametrize(
    ("x", "found"), [([[0.0, 5]], "5"), ([[-1.0, 0]], "-1"), ([[0.5, 1]], "0.5")]
)
def test_what_is_no_word_is_refused(x, found):
    network = Network([Embedding(5, 2)], (2,))
    with pytest.raises(ValueError, match=f"Embedding: found the word {found}, expected whole"):
        network.predict(np.array(x, np.float32))


def test_bytes_are_pixels_and_no_words():
    with pytest.raises(ValueError, match="as floats, since bytes are pixels"):
        Network([Embedding(5, 2)], (2,)).predict(np.array([[3, 1]], np.uint8))


@pytest.mark.parametrize("options", [{"padding": 5}, {"padding": -1}, {"init": -1}, {"init": True}])
def test_arguments(options):
    with pytest.raises(ValueError, match="Embedding: found"):
        Embedding(5, 2, **options)
