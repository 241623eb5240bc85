"""Layers have one place in one network; copies and pickles of networks are networks."""

import copy
import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest
from layer_table import CASES, TRAIN, images, off_kinks

from distnet.nn import (
    BatchNorm,
    Branches,
    Conv2d,
    Dropout,
    Layer,
    LeakyReLU,
    Linear,
    MaxPool2d,
    MicroBatch,
    Network,
    ReLU,
    Residual,
    Sequential,
)
from distnet.nn.description import describe, rebuild
from distnet.nn.joining import joined
from distnet.objectives import Classification
from distnet.training.fit import fit

SHAPE = (2, 8, 8)
COPIES = [copy.deepcopy, lambda original: pickle.loads(pickle.dumps(original))]
by_both = pytest.mark.parametrize("copied", COPIES, ids=["deepcopy", "pickle"])


def network(seed=0, shape=SHAPE):
    block = Residual([Conv2d(4, 3, pad=1, bias=False), BatchNorm()])
    layers = [Conv2d(4, 3, pad=1), MaxPool2d(2), ReLU(), block, Branches([Conv2d(2, 1)], [])]
    return Network([*layers, Dropout(0.25), Linear(5)], shape, seed=seed)


def step(net, at=TRAIN, n=3):
    """Copies of everything that a forward and a backward pass give."""
    y = net.forward(off_kinks((n, *net.input_shape), net.dtype), at).copy()
    net.backward(images(y.shape, net.dtype))
    return y, net.parameters.grads.copy(), net.parameters.batch_statistics.copy()


@by_both
@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_copy_computes_the_same_bits_on_its_own_arrays(case, copied):
    net = Network([case.make()], case.shape, dtype=np.float64)
    net.parameters.statistics += 0.25
    expected = step(net)
    other = copied(net)
    for found, value in zip(step(other), expected, strict=True):
        np.testing.assert_array_equal(found, value)
    for vector in ("values", "grads", "statistics", "batch_statistics"):
        mine, its = (getattr(each.parameters, vector) for each in (net, other))
        assert not np.shares_memory(mine, its) or mine.size == 0
    other.parameters.values *= 2
    other.parameters.refresh()
    for found, value in zip(step(net), expected, strict=True):
        np.testing.assert_array_equal(found, value)


@by_both
def test_the_arrays_of_a_copy_are_views_of_its_vectors(copied):
    net = network()
    step(net)
    other = copied(net)
    x = images((3, *SHAPE), np.float32)
    np.testing.assert_array_equal(other.predict(x), net.predict(x))
    other.parameters.load(network(seed=9).parameters.named(), statistics=False)
    np.testing.assert_array_equal(other.predict(x), network(seed=9).predict(x))


@by_both
def test_a_copy_trains_like_the_original(copied):
    rng = np.random.default_rng(0)
    x, t = rng.random((200, *SHAPE), np.float32), rng.integers(0, 5, 200)
    net = network()
    other = copied(net)
    losses = [fit(each, x, t, steps=10, lr=0.1, batch_size=200).losses for each in (net, other)]
    assert losses[0] == losses[1]
    assert losses[0][-1] < losses[0][0]


@by_both
def test_an_objective_is_copied_with_its_network(copied):
    objective = copied(Classification(network()))
    assert objective.parameters is objective.network.parameters
    objective.gradients(images((3, *SHAPE), np.float32), np.arange(3), MicroBatch())
    assert np.abs(objective.parameters.grads).max() > 0


def test_a_pickle_holds_no_activations():
    net = network()
    size = len(pickle.dumps(net))
    net.predict(images((100, *SHAPE), np.float32))
    step(net, n=100)
    assert len(pickle.dumps(net)) == size


def test_processes_of_a_pool_predict():
    net, x = network(), images((6, *SHAPE), np.float32)
    expected = net.predict(x)
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        parts = list(pool.map(net.predict, [x[:2], x[2:]]))
    np.testing.assert_allclose(np.concatenate(parts), expected, rtol=1e-5, atol=1e-6)


def test_a_copy_of_layers_is_for_another_network():
    block = [Conv2d(2, 3, pad=1), BatchNorm(momentum=0.5), ReLU()]
    layers = [layer for _ in range(2) for layer in copy.deepcopy(block)]
    net = Network([*layers, Linear(5)], SHAPE)
    assert [layer.momentum for layer in net.body.layers if isinstance(layer, BatchNorm)] == [
        0.5
    ] * 2
    again = Network(copy.deepcopy(net.body.layers), SHAPE)
    np.testing.assert_array_equal(again.parameters.values, net.parameters.values)


def test_networks_in_one_vector_are_not_copied_at_once():
    a, b = network(), network(seed=1)
    parameters = joined(a=a, b=b)
    with pytest.raises(TypeError, match="copy the networks and join the copies"):
        copy.deepcopy(parameters)
    x = images((3, *SHAPE), np.float32)
    np.testing.assert_array_equal(copy.deepcopy(b).predict(x), b.predict(x))


# One place for each layer.


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (lambda relu: [Linear(4), relu, Linear(4), relu], "relu2: found the same ReLU as relu1"),
        (
            lambda relu: [relu, Residual([Sequential([Linear(5)]), relu]), Linear(5)],
            "residual1.path1.relu1: found the same ReLU as relu1",
        ),
        (
            lambda relu: [Branches([relu], [Conv2d(2, 1), relu])],
            "branches1.path2.relu1: found the same ReLU as branches1.path1.relu1",
        ),
    ],
)
def test_a_layer_at_two_places_is_refused(layers, message):
    with pytest.raises(ValueError, match=message) as caught:
        Network(layers(ReLU()), SHAPE)
    assert str(caught.value).endswith("make a new ReLU for each place")


def test_layers_of_another_network_are_refused():
    layers = [Conv2d(4, 3), ReLU(), Residual([Conv2d(4, 3, pad=1)]), Linear(5)]
    net = Network(layers, SHAPE)
    x = images((3, *SHAPE), np.float32)
    before = net.predict(x)
    for again in (layers, layers[2:], [Linear(7), *layers[1:2]], [Sequential(layers)]):
        with pytest.raises(ValueError, match="part of another network, expected a new layer"):
            Network(again, SHAPE)
    np.testing.assert_array_equal(net.predict(x), before)


def test_layers_of_a_network_that_could_not_be_built_are_free():
    layers = [Conv2d(4, 5), ReLU(), Linear(3)]
    with pytest.raises(ValueError, match="does not fit"):
        Network(layers, (1, 4, 4))
    assert Network(layers, (1, 8, 8)).output_shape == (3,)


class ShiftedBy(Layer):
    """One of a user's own, with an argument by name and others by position."""

    def __init__(self, *by: float, times: float = 1.0):
        super().__init__()
        self.by, self.times = by, times

    def forward(self, x, out=None, at=None):
        return self.times * x + sum(self.by)


ATTRIBUTES = {
    "slope": (LeakyReLU, "slope", 0.3, "LeakyReLU(0.3)"),
    "by position": (lambda: LeakyReLU(0.2), "slope", 0.3, "LeakyReLU(0.3)"),
    "of several": (
        lambda: BatchNorm(momentum=0.8),
        "eps",
        0.1,
        "BatchNorm(momentum=0.8, eps=0.1)",
    ),
    "ratio": (lambda: Dropout(ratio=0.5), "ratio", 0.125, "Dropout(0.125)"),
    "own": (lambda: ShiftedBy(1, 2), "times", 3.0, "ShiftedBy(1, 2, times=3.0)"),
    "own, of any number": (lambda: ShiftedBy(1), "by", (2, 3), "ShiftedBy(2, 3)"),
}


@pytest.mark.parametrize("name", ATTRIBUTES)
@pytest.mark.parametrize("copied", [*COPIES, lambda net: rebuild(describe(net))])
def test_an_attribute_that_was_changed_is_kept(name, copied):
    make, attribute, value, shown = ATTRIBUTES[name]
    layers, x = [make(), Residual([make()])], images((40, 6), np.float32)
    net = Network(layers, (6,))
    before = net.forward(x, TRAIN)
    for layer in net.body.leaves():
        setattr(layer, attribute, value)
    after, other = net.forward(x, TRAIN), copied(net)
    other.parameters.load(net.parameters.all_named())
    assert not np.allclose(before, after)
    np.testing.assert_array_equal(other.forward(x, TRAIN), after)
    assert [repr(each) for each in other.body.leaves()] == [shown, shown]
    assert repr(make()) != shown


def test_a_ratio_that_cannot_be_is_refused_later_too():
    layer = Dropout()
    with pytest.raises(ValueError, match=r"Dropout: found ratio 1, expected a number in \[0, 1\)"):
        layer.ratio = 1
    assert layer.ratio == 0.5
