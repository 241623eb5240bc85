"""Containers: whatever memory their layers share, each computes what it would alone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layer_table import TRAIN, images

from distnet.nn import (
    BatchNorm,
    Branches,
    Conv2d,
    Dropout,
    Flatten,
    Linear,
    MaxPool2d,
    Network,
    ReLU,
    Residual,
    Sequential,
    Sigmoid,
    Tanh,
    layout,
)

SHAPE = (2, 8, 8)
OF_IMAGES = {
    "conv": lambda: Conv2d(5, 3, pad=1),
    "narrow": lambda: Conv2d(2, 1),
    "pool": lambda: MaxPool2d(3, stride=1, pad=1),
    "relu": ReLU,
    "tanh": Tanh,
    "dropout": lambda: Dropout(0.5),
    "batchnorm": BatchNorm,
}
OF_VECTORS = {
    "linear": lambda: Linear(6),
    "relu": ReLU,
    "sigmoid": Sigmoid,
    "dropout": lambda: Dropout(0.25),
}


KEEP_SHAPE = {kind: OF_IMAGES[kind] for kind in ("pool", "relu", "tanh", "dropout", "batchnorm")}


def chains(kinds, max_size):
    """Names of layers, nested lists of them, and tuples: containers by name and what they hold."""
    name = st.sampled_from(sorted(kinds))
    nested = st.lists(name, min_size=1, max_size=3)
    items = [name, name, nested]
    if kinds is OF_IMAGES:
        paths = st.lists(name, max_size=2)
        kept = st.lists(st.sampled_from(sorted(KEEP_SHAPE)), max_size=3)
        items += [st.tuples(st.just(Branches), paths, paths), st.tuples(st.just(Residual), kept)]
    return st.lists(st.one_of(*items), min_size=1, max_size=max_size)


def make(chain, kinds):
    return [make_item(item, kinds) for item in chain]


def make_item(item, kinds):
    if isinstance(item, str):
        return kinds[item]()
    if isinstance(item, list):
        return Sequential(make(item, kinds))
    container, *paths = item
    return container(*(make(path, kinds) for path in paths))


def network(image_part, vector_part, dtype=np.float32):
    layers = [*make(image_part, OF_IMAGES), Flatten(), *make(vector_part, OF_VECTORS)]
    return Network(layers, SHAPE, seed=1, dtype=dtype)


def fresh(x):
    copy = layout.empty(x.shape, x.dtype)
    copy[...] = x
    return copy


def forward(layer, x, train):
    """Every layer with memory of its own, all copied in between."""
    if isinstance(layer, Sequential):
        for inner in layer.layers:
            x = forward(inner, x, train)
        return x
    if isinstance(layer, Branches | Residual):
        ys = [forward(path, x, train) for path in layer.paths]
        return fresh(np.concatenate(ys, axis=1) if isinstance(layer, Branches) else ys[0] + ys[1])
    return fresh(layer.forward(x, at=train))


def backward(layer, dy):
    if isinstance(layer, Sequential):
        for inner in reversed(layer.layers):
            dy = backward(inner, dy)
        return dy
    if isinstance(layer, Branches):
        dxs = [
            backward(path, dy[:, part]) for path, part in zip(layer.paths, layer.parts, strict=True)
        ]
        return dxs[0] + dxs[1]
    if isinstance(layer, Residual):
        return backward(layer.paths[0], dy) + backward(layer.paths[1], dy)
    return fresh(layer.backward(dy))


def one_by_one(net, x, dy, train):
    y = forward(net.body, x, train)
    dx = backward(net.body, dy)
    return {
        "y": y,
        "dx": dx,
        "grads": net.parameters.grads,
        "statistics": net.parameters.batch_statistics,
    }


def at_once(net, x, dy, train):
    y = net.body.forward(x, at=train).copy()
    dx = net.body.backward(dy).copy()
    return {
        "y": y,
        "dx": dx,
        "grads": net.parameters.grads,
        "statistics": net.parameters.batch_statistics,
    }


@settings(max_examples=100)
@given(chains(OF_IMAGES, 6), chains(OF_VECTORS, 5))
def test_a_chain_equals_its_layers_one_by_one(image_part, vector_part):
    chain, reference = network(image_part, vector_part), network(image_part, vector_part)
    for n, train in [(3, TRAIN), (2, TRAIN), (3, None), (3, TRAIN)]:
        x, dy = images((n, *SHAPE), np.float32), images((n, *chain.output_shape), np.float32)
        x_before, dy_before = x.copy(), dy.copy()
        found, expected = at_once(chain, x, dy, train), one_by_one(reference, x, dy, train)
        for name, value in expected.items():
            np.testing.assert_array_equal(found[name], value, err_msg=name)
        np.testing.assert_array_equal(x, x_before)
        np.testing.assert_array_equal(dy, dy_before)


@settings(max_examples=50)
@given(chains(OF_IMAGES, 5))
def test_results_go_where_they_are_asked_to(chain):
    own, asked = (Network(make(chain, OF_IMAGES), SHAPE).body for _ in range(2))
    x = images((3, *SHAPE), np.float32)
    expected = own.forward(x, at=TRAIN).copy()
    y, dx = layout.empty(expected.shape, np.float32), layout.empty(x.shape, np.float32)
    dy = images(expected.shape, np.float32, seed=1)
    assert asked.forward(x, y, TRAIN) is y
    np.testing.assert_array_equal(y, expected)
    assert asked.backward(dy, dx) is dx
    np.testing.assert_array_equal(dx, own.backward(dy))


def test_layers_in_place_share_their_producers_memory():
    linear, dropout, last = Linear(5), Dropout(0.5), Tanh()
    chain = Network([linear, dropout, last], (4,)).body
    chain.forward(images((3, 4), np.float32), at=TRAIN)
    assert np.shares_memory(last.y, linear.forward(images((3, 4), np.float32)))


def test_an_output_that_is_needed_is_not_overwritten():
    relu = ReLU()
    chain = Network([Linear(5), relu, Dropout(0.5)], (4,)).body
    y = chain.forward(images((3, 4), np.float32), at=TRAIN)
    assert not np.shares_memory(relu.y, y)


def test_names_count_each_kind():
    layers = [Conv2d(2, 3), ReLU(), Conv2d(2, 3), Sequential([Linear(4), ReLU(), Linear(3)])]
    net = Network(layers, SHAPE)
    assert [slot.name for slot in net.parameters.slots] == [
        "conv1.weight",
        "conv1.bias",
        "conv2.weight",
        "conv2.bias",
        "block1.linear1.weight",
        "block1.linear1.bias",
        "block1.linear2.weight",
        "block1.linear2.bias",
    ]


def test_layers_in_front_that_train_nothing_are_asked_for_no_gradient():
    asked = []

    class Front(Tanh):
        """Notes that its backward ran, and whether its gradient is wanted."""

        def backward(self, dy, out=None, need_dx=True):
            asked.append(need_dx)
            return super().backward(dy, out, need_dx)

    net = Network([Front(), Front(), Conv2d(2, 3), Front(), Linear(3)], SHAPE, dtype=np.float64)
    x, dy, ready = images((2, *SHAPE)), images((2, 3), seed=1), []
    gradients = []
    for need_dx in (True, False):
        net.forward(x, TRAIN)
        dx = net.backward(dy, need_dx=need_dx, ready=ready.append)
        assert (dx is not None) == need_dx
        gradients.append(net.parameters.grads.copy())
    assert asked == [True, True, True, True]  # three with need_dx, then the one in the middle
    np.testing.assert_array_equal(*gradients)
    assert ready[-1] == 0


def test_layers_are_reported_when_their_gradients_are_final():
    layers = [Linear(5), ReLU(), Sequential([Linear(4), Tanh()])]
    chain, reported = Network(layers, (4,)).body, []
    y = chain.forward(images((3, 4), np.float32), at=TRAIN)
    chain.backward(np.ones_like(y), after=reported.append)
    assert reported == layers[::-1]


@pytest.mark.parametrize("first", [ReLU, Linear], ids=["without", "with"])
def test_the_gradient_of_the_input_can_be_left_out(first):
    layers = [first(4) if first is Linear else first(), Linear(3)]
    net = Network(layers, (4,))
    x, dy = images((5, 4), np.float32), images((5, 3), np.float32)
    net.body.forward(x, at=TRAIN)
    net.body.backward(dy)
    expected = net.parameters.grads.copy()
    net.parameters.grads[...] = np.nan
    assert net.body.backward(dy, need_dx=False) is None
    np.testing.assert_array_equal(net.parameters.grads, expected)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (lambda: [Conv2d(4, 3), MaxPool2d(3), ReLU(), MaxPool2d(2)], "pool2, whose input is 4 x 1"),
        (lambda: [Linear(5), Conv2d(2, 3)], "conv1, whose input is 5: "),
        (
            lambda: [Residual([Conv2d(2, 3, pad=1), Sequential([Conv2d(3, 9)])])],
            "residual1, whose input is 2 x 5 x 5: block1, whose input is 2 x 5 x 5: conv1, whose ",
        ),
        (
            lambda: [Branches([ReLU()], [Conv2d(2, 3)])],
            r"branches1, whose input is 2 x 5 x 5: Branches: found shapes",
        ),
    ],
)
def test_an_error_names_the_layer_and_what_reaches_it(layers, message):
    with pytest.raises(ValueError, match=message) as caught:
        Network(layers(), (2, 5, 5))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("shape", [(), (0, 4, 4), (1, 4.5, 4), "28", 784, (True, 4, 4)])
def test_a_network_needs_the_shape_of_a_sample(shape):
    with pytest.raises(ValueError, match=r"Network: found input_shape .*, expected whole numbers"):
        Network([Linear(3)], shape)


@pytest.mark.parametrize("shape", [[1, 4, 4], np.array([1, 4, 4]), (np.int64(1), 4, 4)])
def test_the_shape_of_a_sample_may_be_any_sequence(shape):
    net = Network([Linear(3)], shape)
    assert net.input_shape == (1, 4, 4)
    assert net.predict(np.ones((2, 1, 4, 4))).shape == (2, 3)


@pytest.mark.parametrize("layer", [ReLU, "relu", None])
def test_only_layers_are_put_one_after_another(layer):
    with pytest.raises(ValueError, match=r"Sequential: found a layer .*, expected objects such as"):
        Network([Linear(3), layer], (4,))
