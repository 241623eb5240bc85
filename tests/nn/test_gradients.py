"""Every layer's gradient against central differences in float64; and the checker against lies.

The book's sections 4.3 and 5.7.2. Inputs keep a distance from the kinks of ReLU and maximum.
"""

import numpy as np
import pytest
from layer_table import (
    CASES,
    MODE_NAMES,
    MODES,
    STRAIGHT_THROUGH,
    TRAIN,
    all_layers,
    build,
    built,
    names_of,
    off_kinks,
)

from distnet.models import DeepConvNet, SimpleConvNet
from distnet.nn import BatchNorm, Conv2d, Layer, MicroBatch
from distnet.nn.gradient_check import gradient_errors, numerical_gradient, relative_error
from distnet.objectives import Classification

TOLERANCE = 1e-6
BATCH = 4
DIFFERENTIABLE = [case for case in CASES if type(case.make()) not in STRAIGHT_THROUGH]


def test_no_layer_is_missing_from_the_table():
    layers = [case.make() for case in CASES]
    assert {type(part) for layer in layers for part in (layer, *layer.leaves())} == all_layers()


def test_inputs_keep_away_from_kinks():
    for case in CASES:
        x = np.sort(off_kinks((BATCH, *case.shape)), axis=None)
        assert np.abs(x).min() >= 1e-3
        assert np.diff(x).min() >= 1e-3


@pytest.mark.parametrize("train", MODES, ids=MODE_NAMES)
@pytest.mark.parametrize("case", DIFFERENTIABLE, ids=str)
def test_gradients_equal_central_differences(case, train):
    layer = built(case)
    errors = dict(gradient_errors(layer, off_kinks((BATCH, *case.shape)), train))
    assert list(errors) == names_of(layer)
    assert max(errors.values()) < TOLERANCE, errors


def one_case_of_each_layer():
    return list({type(case.make()): case for case in DIFFERENTIABLE}.values())


@pytest.mark.parametrize("case", one_case_of_each_layer(), ids=str)
def test_the_check_rejects_a_gradient_that_is_wrong_by_a_thousandth(case):
    for wrong in names_of(built(case)):
        layer = lie_about(built(case), wrong)
        errors = dict(gradient_errors(layer, off_kinks((BATCH, *case.shape)), TRAIN))
        assert [name for name, error in errors.items() if not error < TOLERANCE] == [wrong]


def lie_about(layer: Layer, wrong: str) -> Layer:
    """The layer, with one of its gradients too large by 0.1 %."""
    honest = layer.backward

    def backward(dy, out=None, need_dx=True):
        dx = honest(dy, out, need_dx)
        grad = dx if wrong == "x" else dict(layer.parameters())[wrong].grad
        grad *= 1.001
        return dx

    layer.backward = backward
    return layer


@pytest.mark.parametrize("layer", [BatchNorm(), Conv2d(2, 3)], ids=["batchnorm", "conv"])
def test_the_check_rejects_nan(layer):
    layer = build(layer, (2, 4, 4))
    honest = layer.backward
    layer.backward = lambda dy, *args: honest(dy, *args) * np.nan
    errors = dict(gradient_errors(layer, off_kinks((BATCH, 2, 4, 4)), TRAIN))
    assert not errors["x"] < TOLERANCE


def test_relative_error_is_absolute_below_one():
    assert relative_error(np.array([0.5, 200.0]), np.array([0.25, 200.0])) == 0.25
    assert relative_error(np.array([0.0, 100.0]), np.array([0.0, 200.0])) == 0.5
    assert relative_error(np.zeros((0, 3)), np.zeros((0, 3))) == 0


def test_numerical_gradient_leaves_its_argument_as_it_was():
    x = np.array([[3.0, 4.0], [0.1, -7.0]])
    before = x.copy()
    gradient = numerical_gradient(lambda: float((x**2).sum()), x)
    np.testing.assert_allclose(gradient, 2 * before, atol=1e-8)
    np.testing.assert_array_equal(x, before)


# Whole networks: the flat gradient of the loss against central differences.


def book_network():
    net = SimpleConvNet((1, 8, 9), filters=3, kernel=3, hidden_size=6, dtype=np.float64)
    net.parameters.values *= 20  # the book's std of 0.01 leaves nearly nothing to differentiate
    return net


def deep_network():
    return DeepConvNet((1, 4, 4), dropout=0.25, dtype=np.float64)


@pytest.mark.parametrize("make", [book_network, deep_network])
def test_the_gradient_of_a_network(make):
    net, rng = make(), np.random.default_rng(0)
    x = off_kinks((BATCH, *net.input_shape), seed=2)
    labels, train = rng.integers(0, 10, BATCH), MicroBatch(seed=4)
    chosen = rng.choice(
        net.parameters.values.size, min(200, net.parameters.values.size), replace=False
    )

    def loss() -> float:
        net.parameters.values[chosen] = part
        net.parameters.refresh()
        return Classification(net).gradients(x, labels, train)[0]

    part = net.parameters.values[chosen].copy()
    loss()
    analytic = net.parameters.grads[chosen].copy()
    assert np.count_nonzero(np.abs(analytic) > 1e-4) > 20
    assert relative_error(analytic, numerical_gradient(loss, part)) < TOLERANCE
