"""A stack of micro-batches in one pass against one after another, bit by bit."""

from __future__ import annotations

import numpy as np
import pytest

from distnet.base.arrays import Array
from distnet.models import MODELS
from distnet.nn import (
    BatchNorm,
    Conv2d,
    Dropout,
    Flatten,
    LeakyReLU,
    Linear,
    MicroBatch,
    Network,
    ReLU,
    Sequential,
    Sigmoid,
    Tanh,
)
from distnet.nn.stacks import STACKABLE, is_stackable, stacked

# Features in groups of several sizes, a prime number of them, few and many outputs, no bias.
NETWORKS = {
    "sigmoid": ((1, 28, 28), lambda: [Linear(50), Sigmoid(), Linear(10)]),
    "relu": ((3, 16, 16), lambda: [Linear(100), ReLU(), Linear(100, bias=False), ReLU()]),
    "tanh": ((769,), lambda: [Linear(300), Tanh(), Linear(17)]),
    "leaky": ((2, 5, 5), lambda: [Flatten(), LeakyReLU(), Linear(3), LeakyReLU(0.2)]),
    "nested": ((40,), lambda: [Sequential([Linear(9), Sequential([Tanh()])]), Linear(4)]),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("frozen", [(), ("linear1.weight",)])
@pytest.mark.parametrize(("k", "n"), [(1, 25), (4, 25), (3, 7), (5, 1), (2, 64), (2, 100)])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_stack_has_the_bits_of_its_micro_batches(name, k, n, frozen, dtype):
    shape, layers = NETWORKS[name]
    network = Network(layers(), shape, seed=1, dtype=dtype)
    network.freeze(*(frozen if name != "nested" else ()))
    rng = np.random.default_rng(n)
    x = rng.standard_normal((k, n, *shape)).astype(dtype)
    dy = rng.standard_normal((k, n, *network.output_shape)).astype(dtype)
    at = MicroBatch()

    together = stacked(network, n, most=5)
    assert is_stackable(network)
    y = together.forward(together.as_input(x.reshape(k * n, *shape)), at)
    outputs = y.copy().reshape(k, n, *network.output_shape)
    dx = together.backward(dy.reshape(k * n, *network.output_shape), need_dx=True)
    assert dx is not None

    for i in range(k):
        np.testing.assert_array_equal(outputs[i], network.forward(network.as_input(x[i]), at))
        np.testing.assert_array_equal(
            dx.reshape(k, n, *shape)[i], network.backward(dy[i], need_dx=True)
        )
        np.testing.assert_array_equal(together.parameters.grads[i], network.parameters.grads)


@pytest.mark.parametrize("copy", [True, False])
@pytest.mark.parametrize("name", NETWORKS)
def test_stacks_of_several_heights_take_turns(name, copy):
    """copy: the input lies elsewhere in each pass, or always where the first layer reads it."""
    shape, layers = NETWORKS[name]
    network, n = Network(layers(), shape, seed=1), 6
    together, rng = stacked(network, n, most=4), np.random.default_rng(0)
    for k in (2, 4, 2, 4, 2, 3, 1, 4, 2):
        network.parameters.values += np.float32(0.01)
        x = rng.standard_normal((k, n, *shape), np.float32)
        dy = rng.standard_normal((k, n, *network.output_shape), np.float32)
        stack = x.reshape(k * n, *shape)
        y = together.forward(together.as_input(stack, copy=copy), MicroBatch())
        together.backward(dy.reshape(k * n, *network.output_shape))
        for i in range(k):
            own = network.forward(network.as_input(x[i]), MicroBatch())
            np.testing.assert_array_equal(y.reshape(k, n, *network.output_shape)[i], own)
            network.backward(dy[i])
            np.testing.assert_array_equal(together.parameters.grads[i], network.parameters.grads)


@pytest.mark.parametrize("function", [np.exp, np.tanh, np.log, np.sqrt])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_an_element_does_not_depend_on_where_it_lies(function, dtype):
    """What stacks rest on: vector instructions and what is left over for others agree."""
    x = np.random.default_rng(0).uniform(0.01, 4, 1000).astype(dtype)
    whole = function(x)
    for length in range(1, 70):
        for start in (0, 1, 3, 500):
            part = slice(start, start + length)
            np.testing.assert_array_equal(function(x[part].copy()), whole[part])
            np.testing.assert_array_equal(function(x[part]), whole[part])


def test_a_pass_that_was_noted_does_not_find_its_way_again(monkeypatch):
    def walk(*args: object) -> None:
        raise AssertionError("found its way again")

    shape, layers = NETWORKS["sigmoid"]
    together, rng = stacked(Network(layers(), shape, seed=1), 6, most=2), np.random.default_rng(0)
    gradients = []
    for number in range(3):
        if number == 2:  # in the first one memory has moved
            monkeypatch.setattr(Sequential, "forward", walk)
            monkeypatch.setattr(Sequential, "backward", walk)
        x, dy = rng.random((12, *shape), np.float32), rng.random((12, 10), np.float32)
        together.forward(together.as_input(x, copy=False), MicroBatch())
        together.backward(dy)
        gradients.append(together.parameters.grads.copy())
    assert (gradients[1] != gradients[2]).any()


def test_a_gradient_belongs_to_the_input_of_its_pass():
    """What backward notes anew, after a pass over another input, is about its own."""
    shape, layers = NETWORKS["tanh"]
    network = Network(layers(), shape, seed=1)
    together, rng = stacked(network, 6, most=4), np.random.default_rng(0)
    inputs = {k: rng.random((6 * k, *shape), np.float32) for k in (2, 4)}
    dy = {k: rng.random((6 * k, 17), np.float32) for k in inputs}
    for k in (2, 4, 2, 4):  # then memory no longer moves
        together.forward(together.as_input(inputs[k], copy=False), MicroBatch())
        together.backward(dy[k])
    together.forward(together.as_input(inputs[2], copy=False), MicroBatch())
    together.backward(dy[2], need_dx=True)
    network.forward(network.as_input(inputs[2][6:]), MicroBatch())
    network.backward(dy[2][6:])
    np.testing.assert_array_equal(together.parameters.grads[1], network.parameters.grads)


def test_what_a_pass_calls_is_noted_once(monkeypatch):
    """Of a second height as of the first, where memory moves and it is noted anew."""
    calls: list[int] = []
    function = Sigmoid.function

    def counting(self: Sigmoid, x: Array, out: Array) -> Array:
        calls.append(len(x))
        return function(self, x, out)

    monkeypatch.setattr(Sigmoid, "function", counting)
    shape, layers = NETWORKS["sigmoid"]
    together = stacked(Network(layers(), shape, seed=1), 6, most=4)
    for k in (4, 1, 4, 1):
        x = np.ones((6 * k, *shape), np.float32)
        calls.clear()
        together.forward(together.as_input(x, copy=False), MicroBatch())
        together.backward(np.ones((6 * k, 10), np.float32))
    assert calls == [6]


def test_notes_of_passes_that_ended_early_are_about_their_own_arrays():
    """Which layers give up after other heights, at other times than the chain its notes."""
    network = Network([Linear(30), Sigmoid(), Linear(7), Tanh(), Linear(4)], (40,), seed=1)
    together, rng = stacked(network, 4, most=8), np.random.default_rng(1)
    for _ in range(300):
        k = int(rng.choice([1, 2, 5, 7, 8], p=[0.1, 0.3, 0.3, 0.2, 0.1]))
        x = rng.standard_normal((4 * k, 40)).astype(np.float32)
        dy = rng.standard_normal((4 * k, 4)).astype(np.float32)
        together.forward(together.as_input(x, copy=False), MicroBatch())
        if rng.random() < 0.4:  # as after a label that is none
            continue
        together.backward(dy, need_dx=rng.random() < 0.3)
        network.forward(network.as_input(x[-4:]), MicroBatch())
        network.backward(dy[-4:])
        np.testing.assert_array_equal(together.parameters.grads[k - 1], network.parameters.grads)


def test_values_are_those_of_the_network_and_gradients_are_not():
    network = Network([Linear(3)], (4,), seed=0)
    together = stacked(network, 2, most=3)
    network.parameters.values[...] = 7
    assert (together.body.layers[0].weight.value == 7).all()
    before = network.parameters.grads.copy()
    together.forward(np.ones((4, 4), np.float32), MicroBatch())
    together.backward(np.ones((4, 3), np.float32))
    np.testing.assert_array_equal(network.parameters.grads, before)
    assert together.parameters.grads[:2].all()
    assert not together.parameters.grads[2].any()


class OwnLinear(Linear):
    """Somebody's, who may look at all rows."""


@pytest.mark.parametrize("layer", [Conv2d(2, 3), BatchNorm(), Dropout(0.5), OwnLinear(3)])
def test_layers_that_know_one_micro_batch_are_not_stacked(layer):
    assert not is_stackable(Network([layer, Linear(2)], (1, 6, 6)))


class OwnChain(Sequential):
    """Somebody's, which may look at all rows, within another chain."""


class OwnNetwork(Network):
    """Somebody's, which may hold what cannot be copied."""


def test_what_a_copy_would_not_do_is_not_stacked():
    def make(kind=Network):
        return kind([Linear(4), LeakyReLU(0.2), Linear(2)], (3,))

    changed, patched = make(), make()
    assert is_stackable(changed)
    changed.body.layers[1].slope = 0.5
    assert is_stackable(changed)
    assert stacked(changed, 2, most=3).body.layers[1].slope == 0.5
    leaky = patched.body.layers[1]
    leaky.forward = lambda x, out=None, at=None: LeakyReLU.forward(leaky, 2 * x, out, at)
    within = Network([Sequential([OwnChain([Linear(4)]), ReLU()]), Linear(2)], (3,))
    for network in (patched, make(OwnNetwork), within):
        assert not is_stackable(network)


def test_only_plain_arithmetic_is_stacked():
    assert is_stackable(MODELS["two_layer"]((1, 28, 28), 10))
    assert not is_stackable(MODELS["two_layer"]((1, 28, 28), 10).compute_in("portable"))
    assert not is_stackable(MODELS["two_layer"]((1, 28, 28), 10).compute_in("bfloat16"))
    assert not is_stackable(MODELS["deep_convnet"]((1, 28, 28), 10))


def test_every_stackable_layer_is_tested():
    tried = {
        type(leaf)
        for shape, layers in NETWORKS.values()
        for layer in layers()
        for leaf in [layer, *layer.leaves(), *getattr(layer, "layers", [])]
    }
    assert tried == STACKABLE
