"""Linear: x W + b on vectors and on images, with the book's order of features."""

import numpy as np
import pytest
from layer_table import build, images

from distnet.nn import Flatten, Linear, Sequential, Unflatten, blocking
from distnet.nn.layers import linear

SHAPES = [(7,), (1,), (3, 4, 5), (1, 4, 5), (6, 1, 1), (1, 1, 1), (4, 1, 3)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("bias", [True, False])
def test_it_is_the_matrix_product_in_the_order_of_the_book(shape, bias):
    layer, x = build(Linear(4, bias=bias), shape), images((5, *shape))
    dy = images((5, 4), seed=1)
    flat, weight = x.reshape(5, -1), layer.weight.value  # (C, H, W) order, W (in, out)
    expected = flat @ weight
    if bias:
        expected = expected + layer.bias.value
    np.testing.assert_allclose(layer.forward(x), expected, rtol=1e-12, atol=1e-13)
    dx = layer.backward(dy)
    np.testing.assert_allclose(dx.reshape(5, -1), dy @ weight.T, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(layer.weight.grad, flat.T @ dy, rtol=1e-12, atol=1e-13)
    if bias:
        np.testing.assert_allclose(layer.bias.grad, dy.sum(axis=0), rtol=1e-12)


def test_products_of_groups_are_added_up_one_by_one_or_all_at_once_with_the_same_bits(monkeypatch):
    monkeypatch.setattr(blocking, "SMALL_PRODUCT", 5 * 4 * 12)  # groups of twelve features

    def answer(products_bytes: int) -> np.ndarray:
        monkeypatch.setattr(linear, "_PRODUCTS_BYTES", products_bytes)
        layer, x = build(Linear(4), (60,), np.float32), images((5, 60), np.float32)
        y = layer.forward(x)
        assert layer.groups(5) == (5, True, 1 if products_bytes == 1 else 5)
        return y

    np.testing.assert_array_equal(answer(1), answer(1 << 20))


@pytest.mark.parametrize(
    ("features", "groups"), [(12, (5, True, 5)), (10, (6, True, 6)), (7, (1, False, 1))]
)
def test_groups_of_few_features_are_one_product(monkeypatch, features, groups):
    monkeypatch.setattr(blocking, "SMALL_PRODUCT", 5 * 4 * features)
    layer, x = build(Linear(4), (60,)), images((5, 60))
    y = layer.forward(x)
    assert layer.groups(5) == groups
    np.testing.assert_allclose(y, x @ layer.weight.value + layer.bias.value, rtol=1e-12)


def test_many_samples_are_multiplied_at_once_but_not_their_gradients(monkeypatch):
    """Adding up their outputs would take longer than groups save."""
    monkeypatch.setattr(blocking, "SMALL_PRODUCT", 25 * 4 * 12)
    layer, x = build(Linear(4), (60,)), images((25, 60))
    y, dy = layer.forward(x), images((25, 4), seed=1)
    assert layer.groups(25) == (5, False, 5)
    np.testing.assert_allclose(y, x @ layer.weight.value + layer.bias.value, rtol=1e-12)
    np.testing.assert_allclose(layer.backward(dy), dy @ layer.weight.value.T, rtol=1e-12)
    np.testing.assert_allclose(layer.weight.grad, x.T @ dy, rtol=1e-12, atol=1e-13)


def test_without_bias_there_is_one_parameter():
    layer = build(Linear(4, bias=False), (3,))
    assert [name for name, _ in layer.parameters()] == ["weight"]


@pytest.mark.parametrize("shape", [(3, 4, 5), (1, 4, 5), (6, 1, 1)], ids=str)
def test_flattening_before_changes_nothing(shape):
    direct, x = build(Linear(4), shape), images((5, *shape))
    chain = build(Sequential([Flatten(), Linear(4)]), shape)
    dy = images((5, 4), seed=1)
    np.testing.assert_allclose(chain.forward(x), direct.forward(x), rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(chain.backward(dy), direct.backward(dy), rtol=1e-12, atol=1e-13)


def test_vectors_are_read_where_they_lie():
    layer, x = build(Linear(4), (60,)), np.ones((5, 60))
    layer.forward(x)
    assert np.shares_memory(layer.x, x)


def test_pixels_of_one_channel_come_as_vectors():
    layer = build(Linear(4), (1, 4, 5))
    inbox = layer.inbox(5)
    inbox[...] = images((5, 1, 4, 5))
    y = layer.forward(inbox).copy()
    assert np.shares_memory(layer.x, inbox)
    np.testing.assert_array_equal(layer.forward(images((5, 1, 4, 5))), y)
    assert build(Linear(4), (3, 4, 5)).inbox(5) is None


def test_unflatten_undoes_flatten():
    x = images((5, 3, 2, 4))
    chain = build(Sequential([Flatten(), Unflatten((3, 2, 4))]), (3, 2, 4))
    np.testing.assert_array_equal(chain.forward(x), x)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((3, 2), r"found input shape \(3, 2\), expected images"),
        ((3, 2, 0), "expected whole numbers of at least 1"),
        ((3, 2, 5), r"found shape \(3, 2, 5\), expected as many as \(24,\)"),
    ],
)
def test_shapes_that_vectors_do_not_have(shape, message):
    with pytest.raises(ValueError, match=f"Unflatten: .*{message}"):
        build(Unflatten(shape), (24,))
