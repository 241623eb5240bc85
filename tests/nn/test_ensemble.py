"""Ensembles against the mean of probabilities, computed in float64."""

from __future__ import annotations

import numpy as np
import pytest

import distnet
from distnet import Conv2d, Ensemble, Linear, Network
from distnet.nn.losses import log_mean_softmax

IMAGES = np.random.Generator(np.random.Philox(key=3)).integers(0, 256, (7, 1, 4, 4), np.uint8)


def network(seed: int = 0, num_classes: int = 3, **settings) -> Network:
    made = Network([Linear(num_classes)], (1, 4, 4), seed=seed, **settings)
    made.parameters.values *= 300  # far from certain nothing, so that some exp underflow
    return made


def probabilities(logits: np.ndarray) -> np.ndarray:
    e = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("arithmetic", ["float32", "portable"])
def test_the_mean_of_probabilities(arithmetic):
    networks = [network(seed, arithmetic=arithmetic) for seed in range(3)]
    ensemble = Ensemble(networks)
    found = distnet.softmax(ensemble.predict(IMAGES))
    expected = np.mean([probabilities(each.predict(IMAGES)) for each in networks], axis=0)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(ensemble.forward(IMAGES), ensemble.predict(IMAGES))


def test_one_network_alone_and_twice_is_what_it_is():
    alone = network()
    expected = probabilities(alone.predict(IMAGES))
    for networks in ([alone], [alone, network()]):
        found = distnet.softmax(Ensemble(networks).predict(IMAGES))
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)


def test_finite_where_probabilities_underflow():
    logits = [np.array([[0.0, -2000.0, -3000.0]]), np.array([[0.0, -3000.0, -2500.0]])]
    expected = [[0.0, -2000.0 - np.log(2), -2500.0 - np.log(2)]]
    np.testing.assert_allclose(log_mean_softmax(logits), expected)


def test_networks_of_different_kinds_go_together():
    other = Network([Conv2d(2, 3), Linear(3)], (1, 4, 4), seed=1)
    assert Ensemble([network(), other]).predict(IMAGES).shape == (7, 3)


def named(*names: str) -> Network:
    made = network()
    made.classes = names
    return made


@pytest.mark.parametrize(
    ("networks", "message"),
    [
        ([], "Ensemble: found no network, expected at least one"),
        (
            [Network([Conv2d(1, 3)], (1, 4, 4))],
            r"Ensemble: found outputs of shape \(1, 2, 2\), expected \(K,\), one for each class",
        ),
        (
            [network(), network(), network(num_classes=4)],
            r"Ensemble: network 2: found output_shape \(4,\), expected that of the first network, ",
        ),
        (
            [network(), Network([Linear(3)], (16,))],
            r"network 1: found input_shape \(16,\), expected that of the first .*, \(1, 4, 4\)",
        ),
        (
            [named("a", "b", "c"), named("a", "c", "b")],
            r"found classes \('a', 'c', 'b'\), expected that of the first network, \('a', 'b', 'c'",
        ),
        (
            [network(), network(arithmetic="portable")],
            r"found arithmetic Portable\(bits=12\), expected .* Float\(\)",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(networks, message):
    with pytest.raises(ValueError, match=message):
        Ensemble(networks)
