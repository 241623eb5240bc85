"""Linear: x W + b on vectors and on images, with the book's order of features."""

import copy

import numpy as np
import pytest
from layer_table import TRAIN, build, images

from distnet.base.arithmetic import FLOAT, Portable, portable
from distnet.nn import (
    BinaryLinear,
    Flatten,
    Linear,
    Network,
    ReLU,
    Sequential,
    Unflatten,
    blocking,
    layout,
)
from distnet.nn.layers import linear
from distnet.nn.parameters import Parameters

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


def whole_numbers(rng, shape, dtype):
    """Whose sums of products are exact: no bit depends on how they are made."""
    return rng.integers(-9, 10, shape).astype(dtype)


@portable
class DoubledLinear(Linear):
    """Makes something of its weight, every time in another array."""

    def computing_weight(self):
        return 2 * self.weight.value


@pytest.mark.parametrize("make", [Linear, BinaryLinear, DoubledLinear])
@pytest.mark.parametrize("arithmetic", [FLOAT, Portable()], ids=["float", "portable"])
@pytest.mark.parametrize("shape", [(24,), (2, 3, 4), (1, 4, 6)], ids=str)
def test_what_was_prepared_for_other_arrays_is_never_used(monkeypatch, make, arithmetic, shape):
    """Whatever has changed since, the answers are those of a layer that is called once."""
    monkeypatch.setattr(blocking, "SMALL_PRODUCT", 4 * 5 * 8)
    rng, dtype = np.random.default_rng(0), arithmetic.dtype(np.float32)
    layer = build(make(5), shape, np.float32, arithmetic=arithmetic)
    parameters = Parameters({"": layer}, np.float32, arithmetic)
    kept = {n: [np.empty(s, dtype) for s in ((n, *shape), (n, 5), (n, *shape))] for n in (3, 4, 9)}
    for turn in range(150):
        n = int(rng.choice(list(kept)))
        x, y, dx = kept[n]
        x = [x, x.copy(), layout.empty(x.shape, dtype), layer.inbox(n)][rng.integers(4)]
        x = layout.empty((n, *shape), dtype) if x is None else x
        x[...] = whole_numbers(rng, x.shape, dtype)
        if turn % 5 == 0:
            vectors = parameters.values, parameters.constants
            others = parameters.statistics, parameters.batch_statistics
            own = [np.zeros_like(array) for array in (*vectors, *others)]
            parameters.move_to(own[0], np.zeros_like(parameters.grads), *own[1:])
        if turn % 3 == 0:
            parameters.values[...] = whole_numbers(rng, parameters.values.shape, np.float32)
            parameters.refresh()
        if turn % 7 == 0:
            layer.memory.pool._give_up_views()
        if turn % 11 == 0:  # evaluation
            layer.forward(whole_numbers(rng, (n + 1, *shape), dtype))

        once = build(make(5), shape, np.float32, arithmetic=arithmetic)
        for own, other in zip(once.parameters(), layer.parameters(), strict=True):
            own[1].value[...] = other[1].value
        once.refresh()
        found = layer.forward(x, [None, y][rng.integers(2)], TRAIN)
        np.testing.assert_array_equal(found, once.forward(x.copy(), None, TRAIN))
        for _ in range(rng.integers(1, 4)):
            dy = whole_numbers(rng, (5, n), dtype).T if rng.integers(2) else y
            dy[...] = whole_numbers(rng, (n, 5), dtype)
            need_dx = bool(rng.integers(2))
            found = layer.backward(dy, [None, dx][rng.integers(2)], need_dx)
            expected = once.backward(dy.copy())
            if need_dx:
                np.testing.assert_array_equal(found, expected)
            for own, other in zip(once.parameters(), layer.parameters(), strict=True):
                np.testing.assert_array_equal(other[1].grad, own[1].grad)


def test_a_network_that_was_changed_computes_what_its_copy_does():
    rng = np.random.default_rng(0)
    network = Network([Linear(6), ReLU(), Linear(9), Linear(4)], (1, 4, 4))
    changes = [
        lambda: None,
        lambda: network.freeze("linear2.weight"),
        lambda: network.predict(np.zeros((100, 1, 4, 4))),  # scratch memory moves
        lambda: network.compute_in("portable"),
        lambda: network.freeze(),
        lambda: network.compute_in("bfloat16"),
        lambda: network.compute_in("float32"),
        lambda: network.parameters.take_anew(),
    ]
    for change in changes:
        change()
        values = network.parameters.values
        values[...] = whole_numbers(rng, values.shape, values.dtype)
        network.parameters.refresh()
        twin = copy.deepcopy(network)
        for n in (3, 3, 5, 2, 3):
            x, dy = images((n, 1, 4, 4), network.dtype), images((n, 4), network.dtype, seed=1)
            answers = []
            for each in (network, twin if n == 5 else copy.deepcopy(twin)):
                y = each.forward(each.as_input(x), TRAIN)
                dx = each.backward(dy, need_dx=True)
                answers.append([y, dx, each.parameters.grads])
            for found, expected in zip(*answers, strict=True):
                np.testing.assert_array_equal(found, expected)


def test_products_are_prepared_once_for_the_threads_that_blas_has(monkeypatch):
    """On one thread they are made in another way than where several share one."""
    layer, x, dy = build(Linear(4), (6,), np.float32), np.ones((5, 6)), np.ones((5, 4))
    product, made = blocking.product, []
    monkeypatch.setattr(blocking, "product", lambda *of: made.append(of) or product(*of))
    counts = []
    for terms in (0, 0, 0, 448, 448, 0):
        for module in (blocking, linear):
            monkeypatch.setattr(module, "terms_of_small_products", lambda terms=terms: terms)
        made.clear()
        layer.forward(x)
        layer.backward(dy)
        counts.append(len(made))
    # (The first backward pass makes room for gradients, so that views are made again.)
    assert counts == [2, 1, 0, 2, 0, 0]


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
