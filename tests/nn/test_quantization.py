"""A network in whole numbers: which ones, that their sums are exact, and that it predicts alike."""

import copy
import json

import numpy as np
import pytest
from layer_table import images

from distnet.nn import (
    BatchNorm,
    Branches,
    Conv2d,
    GlobalAvgPool2d,
    Linear,
    MaxPool2d,
    MaxUnpool2d,
    Network,
    Quantize,
    ReLU,
    Residual,
    Scale,
    Sequential,
    Tanh,
    quantize,
)
from distnet.nn.description import describe, rebuild
from distnet.nn.quantization import EXACT, sum_bounds

SHAPE = (2, 8, 8)


def network(dtype=np.float32):
    """All kinds of containers, with signed and unsigned activations, folded and unfolded norms."""
    stem = [Conv2d(8, 3, pad=1, bias=False), BatchNorm(), MaxPool2d(2), ReLU()]
    block = Residual([Conv2d(8, 3, pad=1), Tanh(), Conv2d(8, 3, pad=1)], [Conv2d(8, 1)])
    rest = [Sequential([BatchNorm(), Branches([Conv2d(4, 1)], [])]), MaxPool2d(2), MaxUnpool2d()]
    net = Network([*stem, block, *rest, GlobalAvgPool2d(), Linear(6)], SHAPE, seed=3, dtype=dtype)
    net.parameters.statistics[...] = np.linspace(0.5, 1.5, net.parameters.statistics.size)
    net.classes = tuple("abcdef")
    return net


def pixels(n=100, seed=0):
    return np.random.default_rng(seed).random((n, *SHAPE)).astype(np.float32)


def test_predictions_are_nearly_the_same():
    net, x = network(), pixels(seed=1)
    small = quantize(net, pixels())
    expected, found = net.predict(x), small.predict(x)
    spread = np.abs(expected - expected.mean(axis=0)).max()
    assert 0 < np.abs(found - expected).max() < 0.1 * spread
    assert small.classes == net.classes
    coarse = quantize(net, pixels(), weight_bits=3, activation_bits=4).predict(x)
    assert np.abs(coarse - expected).max() > 3 * np.abs(found - expected).max()


def test_weights_biases_and_activations_are_whole_numbers():
    small = quantize(network(), pixels())
    seen = {}
    for name, leaf in small.body.named_leaves():
        if isinstance(leaf, Conv2d | Linear):
            for part, parameter in leaf.parameters():
                np.testing.assert_array_equal(parameter.value, np.rint(parameter.value))
                if part == "weight":
                    assert np.abs(parameter.value).max() == 127
                    seen[name] = leaf
    assert len(seen) == 6
    assert [type(leaf) for leaf in small.body.leaves()].count(Scale) == 6
    lows = [leaf.low for leaf in small.body.leaves() if isinstance(leaf, Quantize)]
    assert sorted(lows) == [-127, -127, -127, 0, 0, 0]


def test_units_are_those_of_the_largest_number():
    net = Network([Linear(2)], (3,), dtype=np.float64)
    net.parameters.named()["linear1.weight"][...] = [[0.5, -4], [-0.2, 1], [0.1, 2]]
    net.parameters.named()["linear1.bias"][...] = [0.3, -1]
    small = quantize(net, np.array([[0.0, 0.1, 2.0], [1, 0, 0]]))
    quantizer, linear, scale = small.body.layers
    assert (quantizer.scale, quantizer.low, quantizer.high) == (2 / 255, 0, 255)
    np.testing.assert_array_equal(linear.weight.value, [[127, -127], [-51, 32], [25, 64]])
    np.testing.assert_allclose(scale.factor.value, [2 / 255 * 0.5 / 127, 2 / 255 * 4 / 127])
    np.testing.assert_array_equal(linear.bias.value, np.rint([0.3, -1] / scale.factor.value))
    bounds = [255 * (127 + 51 + 25) + linear.bias.value[0], 255 * (127 + 32 + 64) + 4053]
    assert sum_bounds(small) == {"linear1": max(map(int, bounds))}


def test_a_scale_of_the_networks_own_stays_what_it_is():
    layers = [Scale(), Conv2d(4, 3, pad=1), Tanh(), Scale(), Linear(6), Scale()]
    net, x = Network(layers, SHAPE, seed=3), pixels(seed=1)
    for leaf in net.body.leaves():
        if isinstance(leaf, Scale):
            leaf.factor.value[...] = np.linspace(0.5, 1.5, leaf.factor.size)
    expected, found = net.predict(x), quantize(net, pixels()).predict(x)
    spread = np.abs(expected - expected.mean(axis=0)).max()
    assert 0 < np.abs(found - expected).max() < 0.1 * spread


def test_a_layer_of_zeros_stays_one():
    net = Network([Linear(2), ReLU(), Linear(3)], (4,), seed=None)
    small = quantize(net, np.zeros((5, 4), np.float32))
    np.testing.assert_array_equal(small.predict(np.ones((2, 4), np.float32)), np.zeros((2, 3)))


def test_sums_in_float32_are_those_of_integers():
    """Of every convolution and linear layer, with large inputs and weights, to the last bit."""
    small = quantize(network(), pixels())
    assert max(sum_bounds(small).values()) < EXACT
    x = 4 * pixels(seed=2)  # beyond what was seen: many activations end at the top
    double = rebuild(describe(small) | {"dtype": "float64"})
    double.parameters.load(small.parameters.all_named())
    sums = []
    for net in (small, double):
        found = {}
        for name, leaf in net.body.named_leaves():
            if isinstance(leaf, Conv2d | Linear):
                leaf.forward = recording(leaf.forward, found, name)
        net.predict(x.astype(net.dtype))
        sums.append(found)
    first = next(iter(sums[0]))
    np.testing.assert_array_equal(sums[0][first], sums[1][first])
    for name, array in sums[0].items():
        np.testing.assert_array_equal(array, np.rint(array))
        assert np.abs(array).max() <= sum_bounds(small)[name]


def recording(forward, found, name):
    def record(x, out=None, at=None):
        y = forward(x, out, at)
        found[name] = y.copy()
        return y

    return record


def test_sums_that_are_too_long_are_told():
    net = Network([Linear(1)], (1000,), dtype=np.float64)
    net.parameters.values[...] = 1
    assert sum_bounds(quantize(net, np.ones((2, 1000))))["linear1"] > EXACT


def test_copies_and_descriptions_of_it():
    small, x = quantize(network(), pixels()), pixels(9)
    again = rebuild(json.loads(json.dumps(describe(small))))
    again.parameters.load(small.parameters.all_named())
    for other in (again, copy.deepcopy(small)):
        np.testing.assert_array_equal(other.predict(x), small.predict(x))


@pytest.mark.parametrize("name", ["weight_bits", "activation_bits"])
@pytest.mark.parametrize("bits", [1, 0, -1, 25, 2.5, True])
def test_too_few_bits_or_too_many_are_refused(name, bits):
    with pytest.raises(ValueError, match=f"quantize: found {name} {bits}, expected a whole number"):
        quantize(network(), pixels(), **{name: bits})


def test_the_network_is_left_alone_and_not_quantized_twice():
    net = network()
    before = net.predict(pixels(9))
    small = quantize(net, pixels())
    np.testing.assert_array_equal(net.predict(pixels(9)), before)
    with pytest.raises(ValueError, match="found a network of whole numbers"):
        quantize(small, pixels())
    assert not np.shares_memory(images((1, *SHAPE)), before)
