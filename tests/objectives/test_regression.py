"""The mean squared error: its value, its gradient, and images as targets."""

from __future__ import annotations

import numpy as np
import pytest

from distnet.base.errors import DataError
from distnet.nn import Conv2d, Linear, MicroBatch, Network, Tanh
from distnet.nn.gradient_check import numerical_gradient, relative_error
from distnet.objectives import Regression


def test_value_gradient_and_metrics():
    rng = np.random.default_rng(0)
    x, targets = rng.standard_normal((7, 3)), rng.standard_normal((7, 2))
    trained = Regression(Network([Linear(4), Tanh(), Linear(2)], (3,), dtype=np.float64))
    difference = trained.network.predict(x) - targets
    (loss,) = trained.gradients(x, targets, MicroBatch())
    assert loss == pytest.approx(0.5 * (difference**2).sum() / 7, rel=1e-12)
    rmse = trained.metrics(loss, np.zeros(0), 7)["rmse"]
    assert rmse == pytest.approx(np.sqrt((difference**2).mean()), rel=1e-12)
    found = trained.parameters.grads.copy()

    def again() -> float:
        trained.parameters.refresh()
        return float(trained.gradients(x, targets, MicroBatch())[0])

    assert relative_error(found, numerical_gradient(again, trained.parameters.values)) < 1e-8


def test_bytes_as_targets_mean_0_to_1():
    images = np.random.default_rng(1).integers(0, 256, (5, 2, 4, 4), np.uint8)
    trained = Regression(Network([Conv2d(2, 3, pad=1)], (2, 4, 4), dtype=np.float64))
    x = trained.as_input(images)
    (of_bytes,) = trained.measure(x, images)
    (of_floats,) = trained.measure(x, images / 255)
    assert of_bytes == pytest.approx(of_floats, rel=1e-12)


@pytest.mark.parametrize("shape", [(5,), (5, 1)])
def test_bytes_that_are_no_images_are_neither_pixels_nor_numbers(shape):
    trained = Regression(Network([Linear(1)], (3,)))
    x, ages = np.zeros((5, 3), np.float32), np.arange(20, 25).reshape(shape)
    with pytest.raises(DataError, match=r"targets: found uint8 .*, expected floats, or images"):
        trained.measure(x, ages.astype(np.uint8))
    for kind in (np.int64, np.uint16, np.float32):
        (loss,) = trained.measure(x, ages.astype(kind))
        assert loss == pytest.approx(0.5 * np.square(ages).sum())


def test_text_is_no_number():
    trained = Regression(Network([Linear(1)], (3,)))
    with pytest.raises(DataError, match="targets: found <U1, expected numbers"):
        trained.measure(np.zeros((2, 3), np.float32), np.array(["a", "b"]))


def test_vectors_may_be_trained_to_be_images():
    """In the order (C, H, W), as `Linear` reads images."""
    images = np.random.default_rng(1).random((5, 2, 4, 4))
    trained = Regression(Network([Linear(32)], (2, 4, 4), dtype=np.float64))
    as_images = trained.measure(images, images)
    np.testing.assert_array_equal(as_images, trained.measure(images, images.reshape(5, 32)))


@pytest.mark.parametrize("shape", [(4, 2), (5, 3), (5,)])
def test_targets_of_another_shape(shape):
    trained = Regression(Network([Linear(2)], (3,)))
    with pytest.raises(ValueError, match=r"targets: found shape .*, expected \(5, 2\)"):
        trained.measure(np.zeros((5, 3), np.float32), np.zeros(shape))
