"""Digits with exactly zero margins, biases exactly zero: what Winograd makes of the kink of ReLU.

docs/fast-convolution.md states the decision that rests on this.
"""

import numpy as np
import pytest

from distnet.data import load_dataset
from distnet.models import DeepConvNet
from distnet.nn import Conv2d, Linear, MaxPool2d, MicroBatch, Network, ReLU
from distnet.objectives import Classification

N = 25


@pytest.fixture(scope="module")
def digits():
    data = load_dataset()
    return data.train.inputs[:N] / 255, data.train.targets[:N]


def with_algorithm(algorithm, dtype):
    """DeepConvNet as it starts, but for dropout."""
    layers = []
    for filters, pad in ((16, 1), (32, 2), (64, 1)):
        first = algorithm if layers else "auto"
        layers += [Conv2d(filters, 3, pad=1, algorithm=first), ReLU()]
        layers += [Conv2d(filters, 3, pad=pad, algorithm=algorithm), MaxPool2d(2), ReLU()]
    network = Network([*layers, Linear(50), ReLU(), Linear(10)], (1, 28, 28), dtype=dtype)
    network.parameters.load(DeepConvNet().parameters.named())
    return network


def gradients(digits, algorithm, dtype, bias):
    """The loss and each parameter's gradient, with `algorithm` in all layers but the first."""
    network = with_algorithm(algorithm, dtype)
    for name, value in network.parameters.named().items():
        if name.endswith("bias"):
            value[...] = bias
    network.parameters.refresh()
    x, labels = digits
    loss, _ = Classification(network).gradients(x.astype(dtype), labels, MicroBatch(), N)
    return loss, {
        s.name: network.parameters.grads[s.start : s.stop].astype(float)
        for s in network.parameters.slots
    }


def errors(digits, algorithm, bias):
    """Of the loss, and the worst of the weights' and of the biases' gradients."""
    loss, found = gradients(digits, algorithm, np.float32, bias)
    expected_loss, expected = gradients(digits, "im2col", np.float64, bias)
    worst = {"weight": 0.0, "bias": 0.0}
    for name, grad in expected.items():
        error = np.abs(found[name] - grad).max() / np.abs(grad).max()
        part = name.split(".")[1]
        worst[part] = max(worst[part], error)
    return abs(loss / expected_loss - 1), worst["weight"], worst["bias"]


def test_f2_is_exact_where_the_window_is_zero(digits):
    assert max(errors(digits, "winograd2", bias=0.0)) < 1e-5


def test_f4_has_the_right_loss_and_another_subgradient(digits):
    loss, weight, bias = errors(digits, "winograd4", bias=0.0)
    assert loss < 1e-6
    assert weight < 1e-2
    assert 1e-3 < bias < 1, "the documented caveat: has it gone?"


def test_f4_is_exact_once_biases_are_not_zero(digits):
    assert max(errors(digits, "winograd4", bias=0.01)) < 1e-4
