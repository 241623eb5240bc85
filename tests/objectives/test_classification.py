"""Softmax cross-entropy with smoothed targets and weighted classes, against its definition."""

from __future__ import annotations

import numpy as np
import pytest

from distnet.nn import Linear, MicroBatch, Network, Tanh
from distnet.nn.gradient_check import numerical_gradient, relative_error
from distnet.objectives import Classification

N, NUM_CLASSES = 11, 4
SETTINGS = [
    {},
    {"label_smoothing": 0.1},
    {"class_weights": [1.0, 0.25, 3.0, 2.0]},
    {"label_smoothing": 0.3, "class_weights": [0.5, 1.0, 2.0, 4.0]},
]


@pytest.fixture
def batch():
    rng = np.random.default_rng(1)
    return rng.standard_normal((N, 5)), rng.integers(0, NUM_CLASSES, N)


def objective(**settings) -> Classification:
    network = Network([Linear(6), Tanh(), Linear(NUM_CLASSES)], (5,), seed=2, dtype=np.float64)
    return Classification(network, **settings)


def defined(logits, labels, label_smoothing=0.0, class_weights=None):
    """The weighted mean of the cross-entropies with the smoothed targets, sample by sample."""
    weights = np.ones(NUM_CLASSES) if class_weights is None else np.array(class_weights)
    total = 0.0
    for row, label in zip(logits, labels, strict=True):
        p = np.exp(row) / np.exp(row).sum()
        target = np.full(NUM_CLASSES, label_smoothing / NUM_CLASSES)
        target[label] += 1 - label_smoothing
        total -= weights[label] * (target * np.log(p)).sum()
    return total / weights[labels].sum()


@pytest.mark.parametrize("settings", SETTINGS)
def test_the_loss_is_the_defined_one(batch, settings):
    x, labels = batch
    trained = objective(**settings)
    expected = defined(trained.network.predict(x), labels, **settings)
    loss, correct = trained.gradients(x, labels, MicroBatch())
    assert loss == pytest.approx(expected, rel=1e-12)
    assert correct == (trained.network.predict(x).argmax(axis=1) == labels).sum()
    measured, counted = trained.measure(x, labels)
    assert measured / trained.divisor(labels) == pytest.approx(expected, rel=1e-12)
    assert counted == correct


@pytest.mark.parametrize("settings", SETTINGS)
def test_gradients_are_those_of_the_loss(batch, settings):
    x, labels = batch
    trained = objective(**settings)
    trained.gradients(x, labels, MicroBatch())
    found, values = trained.parameters.grads.copy(), trained.parameters.values

    def loss() -> float:
        trained.parameters.refresh()
        return float(trained.gradients(x, labels, MicroBatch())[0])

    assert relative_error(found, numerical_gradient(loss, values)) < 1e-8


@pytest.mark.parametrize("settings", SETTINGS)
def test_micro_batches_add_up_to_the_batch(batch, settings):
    x, labels = batch
    trained = objective(**settings)
    expected = trained.gradients(x, labels, MicroBatch())
    gradient = trained.parameters.grads.copy()
    divisor, sums, total = trained.divisor(labels), np.zeros(2), np.zeros_like(gradient)
    for part in (slice(0, 5), slice(5, 6), slice(6, N)):
        sums += trained.gradients(x[part], labels[part], MicroBatch(), divisor)
        total += trained.parameters.grads
    np.testing.assert_allclose(sums, expected, rtol=1e-12)
    np.testing.assert_allclose(total, gradient, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"label_smoothing": 1.0}, "label_smoothing: found 1.0, expected 0 <= e < 1"),
        ({"class_weights": [1, 2, 0, 1]}, "expected positive numbers"),
        ({"class_weights": [1, np.nan, 1, 1]}, "expected positive numbers"),
    ],
)
def test_settings_that_make_no_sense(settings, message):
    with pytest.raises(ValueError, match=message):
        objective(**settings)


def test_a_weight_for_each_class():
    with pytest.raises(ValueError, match="class_weights: found 3, expected 4"):
        objective(class_weights=[1, 2, 3])
    with pytest.raises(ValueError, match=r"found 'balanced', expected .*; balanced_weights"):
        objective(class_weights="balanced")  # as the flag has it


def test_a_network_whose_outputs_are_images_is_no_classifier():
    with pytest.raises(ValueError, match=r"found outputs of shape \(1, 4, 4\), expected \(K,\)"):
        Classification(Network([Tanh()], (1, 4, 4)))
