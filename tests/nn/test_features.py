"""The features of a network: its own outputs, on images of any size, with their gradient."""

from __future__ import annotations

import numpy as np
import pytest

from distnet.nn import (
    AvgPool2d,
    BatchNorm,
    Conv2d,
    Linear,
    MicroBatch,
    Network,
    ReLU,
    Standardize,
    Tanh,
    layout,
)
from distnet.nn.features import Features
from distnet.nn.gradient_check import numerical_gradient, relative_error

TAPS = ("tanh1", "conv2", "tanh3")


def network() -> Network:
    """Smooth, with running statistics that are not those it started with."""
    layers = [Standardize((0.5, 0.2), (0.25, 0.5)), Conv2d(3, 3, pad=1), Tanh()]
    layers += [AvgPool2d(2), Conv2d(4, 3, pad=1), BatchNorm(), Tanh(), Conv2d(2, 1), Tanh()]
    made = Network([*layers, Linear(5)], (2, 6, 8), seed=3, dtype=np.float64)
    made.parameters.statistics[...] += np.random.default_rng(0).random(8)
    made.parameters.refresh()
    return made


def pictures(shape) -> np.ndarray:
    x = layout.empty(shape, np.float64)
    x[...] = np.random.default_rng(1).random(shape)
    return x


def test_they_are_what_the_layers_of_the_network_give():
    known, x = network(), pictures((2, 2, 6, 8))
    features = Features(known, TAPS, known.input_shape)
    expected, y = [], x
    for name, layer in known.body.named_layers():
        y = layer.forward(y)
        if name in TAPS:
            expected.append(y.copy())
    for one, other in zip(features.forward(x), expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-15)
    assert [(2, *shape) for shape in features.shapes] == [each.shape for each in expected]


@pytest.mark.parametrize("given", [(0, 1, 2), (2,), (0, 2)])
def test_the_gradient_of_images_of_another_size(given):
    x = pictures((1, 2, 4, 10))
    features = Features(network(), TAPS, x.shape[1:])
    rng = np.random.default_rng(2)
    weights = [
        rng.standard_normal(each.shape) if number in given else None
        for number, each in enumerate(features.forward(x))
    ]

    def weighted() -> float:
        seen = features.forward(x)
        return sum(
            float((w * y).sum()) for w, y in zip(weights, seen, strict=True) if w is not None
        )

    weighted()
    found = features.backward(weights).copy()
    assert relative_error(found, numerical_gradient(weighted, x)) < 1e-7


def test_the_network_is_another_and_stays_as_it_is():
    known, x = network(), pictures((3, 2, 6, 8))
    features = Features(known, TAPS, known.input_shape)
    before = features.forward(x)[-1].copy()
    values = known.parameters.values.copy()
    features.backward([None, None, before])
    np.testing.assert_array_equal(known.parameters.values, values)
    known.parameters.values[...] = 0
    known.parameters.refresh()
    np.testing.assert_array_equal(features.forward(x)[-1], before)
    assert features.network.parameters.values.size == 0  # all is constant
    known.forward(x, MicroBatch())  # its layers are its own


@pytest.mark.parametrize("taps", [(), ("relu1",), ("tanh3", "tanh1"), ("tanh1", "tanh1")])
def test_taps_that_are_refused(taps):
    with pytest.raises(ValueError, match=r"found taps .*, expected layers .* of standardize1, "):
        Features(network(), taps, (2, 6, 8))


def test_a_layer_that_depends_on_the_size_is_refused_at_another_one():
    known = Network([Conv2d(2, 3), ReLU(), Linear(4)], (1, 5, 5))
    assert Features(known, ["linear1"], (1, 5, 5)).shapes == [(4,)]
    with pytest.raises(ValueError, match=r"linear1.weight of shape \(18, 4\), expected \(50, 4\)"):
        Features(known, ["linear1"], (1, 7, 7))
