"""Layers of one bit: that they compute with signs, and which gradient they hand on."""

import numpy as np
import pytest
from layer_table import TRAIN, build, images

from distnet.nn import (
    BatchNorm,
    BinaryConv2d,
    BinaryLinear,
    Conv2d,
    Linear,
    MaxPool2d,
    Network,
    Sign,
    fold_batchnorm,
    quantize,
)
from distnet.parallel import SerialCommunicator
from distnet.training.fit import fit

PAIRS = [
    (lambda: BinaryConv2d(16, 3, pad=1), lambda: Conv2d(16, 3, pad=1)),
    (lambda: BinaryLinear(5), lambda: Linear(5)),
]
of_both_kinds = pytest.mark.parametrize(("make", "plain"), PAIRS, ids=["conv", "linear"])


def test_signs_and_where_their_gradient_passes():
    layer = build(Sign(), (7,))
    x = np.array([[-3.0, -1, -0.5, -0.0, 0.5, 1, 1.5]])
    np.testing.assert_array_equal(layer.forward(x), [[-1, -1, -1, 1, 1, 1, 1]])
    np.testing.assert_array_equal(layer.backward(np.full((1, 7), 2.0)), [[0, 2, 2, 2, 2, 2, 0]])
    assert np.isnan(layer.forward(np.full((1, 7), np.nan))).all()


@of_both_kinds
def test_it_computes_as_a_layer_whose_weights_are_the_signs(make, plain):
    binary, other = build(make(), (2, 4, 4)), build(plain(), (2, 4, 4))
    other.weight.value[...] = np.sign(binary.weight.value)
    other.refresh()
    x = images((3, 2, 4, 4))
    y = binary.forward(x, at=TRAIN)
    np.testing.assert_array_equal(y, other.forward(x, at=TRAIN))
    dy = images(y.shape, seed=1)
    np.testing.assert_array_equal(binary.backward(dy), other.backward(dy))
    np.testing.assert_array_equal(binary.weight.grad, other.weight.grad)


@of_both_kinds
def test_floats_stay_between_minus_one_and_one(make, plain):
    layer = build(make(), (2, 4, 4))
    layer.weight.value[...] *= 5
    layer.refresh()
    assert np.abs(layer.weight.value).max() == 1
    layer.weight.value[...] = 0
    layer.refresh()
    assert (layer.computing_weight() == 1).all()


def test_pooling_behind_it_runs_with_it():
    pair = [BinaryConv2d(16, 3, pad=1), MaxPool2d(2)]
    net = Network(pair, (4, 8, 8), dtype=np.float64)
    assert [stage.name for stage in net.body.stages] == ["conv1+pool1"]
    alone = Network([BinaryConv2d(16, 3, pad=1)], (4, 8, 8), dtype=np.float64)
    x = images((2, 4, 8, 8))
    y = alone.forward(x)
    expected = y.reshape(2, 16, 4, 2, 4, 2).max(axis=(3, 5))
    np.testing.assert_allclose(net.forward(x), expected, atol=1e-12)


def test_what_is_made_of_weights_leaves_signs_alone():
    net = Network([BinaryConv2d(4, 3), BatchNorm(), BinaryLinear(3), BatchNorm()], (1, 6, 6))
    net.parameters.statistics[...] = np.linspace(0.5, 2, net.parameters.statistics.size)
    x = images((9, 1, 6, 6), np.float32)
    for other in (fold_batchnorm(net), quantize(net, x)):
        np.testing.assert_array_equal(other.predict(x), net.predict(x))


def binary_network():
    layers = [BinaryLinear(64, bias=False), BatchNorm(), Sign(), BinaryLinear(5), BatchNorm()]
    return Network(layers, (16,), seed=2)


def samples():
    rng = np.random.default_rng(0)
    centres = rng.choice([-1, 1], (5, 16)).astype(np.float32)
    labels = rng.integers(0, 5, 300)
    return (centres[labels] + rng.normal(0, 0.8, (300, 16))).astype(np.float32), labels


@pytest.mark.mpi(min_size=2)
def test_it_learns_with_the_same_bits_on_any_number_of_ranks(comm):
    values = []
    for group in (SerialCommunicator(), comm):
        net = binary_network()
        settings = {"batch_size": 50, "micro_batch_size": 25, "optimizer": "adam", "lr": 0.01}
        history = fit(net, *samples(), steps=60, **settings, comm=group)
        values.append(net.parameters.values.copy())
    np.testing.assert_array_equal(*values)
    assert np.mean(history.accuracies[-10:]) > 0.9 > 2 * np.mean(history.accuracies[:1])
    assert np.abs(net.parameters.named()["linear1.weight"]).max() <= 1
