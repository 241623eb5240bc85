"""The drawn shapes: the same everywhere, too hard for a linear classifier, not for convolutions."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from distnet.data import load_dataset
from distnet.data.sets.shapes import CLASSES, NOISE, draw
from distnet.nn import Conv2d, Linear, MaxPool2d, Network, ReLU
from distnet.training.fit import fit

SHA256 = "9bfacf823e2a0f42b83874f356ce8c802f77a2134e3452725a2d973cc6fd0579"


def test_never_changes_between_versions_and_machines():
    samples = draw(1003, seed=3)
    content = samples.inputs.tobytes() + samples.targets.tobytes()
    assert hashlib.sha256(content).hexdigest() == SHA256


def test_the_data_set():
    data = load_dataset("shapes")
    assert (data.name, data.input_shape, data.num_classes) == ("shapes", (3, 32, 32), 10)
    assert data.train.inputs.dtype == np.uint8 and data.notes == ()
    assert np.bincount(data.train.targets).tolist() == [1000] * 10
    assert np.bincount(data.test.targets).tolist() == [200] * 10


def test_more_samples_begin_with_the_same_and_another_seed_with_others():
    few, many = draw(30), draw(700)
    np.testing.assert_array_equal(many.inputs[:30], few.inputs)
    assert (draw(30, seed=1).inputs != few.inputs).mean() > 0.9


def test_a_picture_has_two_colours_and_noise():
    for image in draw(20, seed=5).inputs.astype(int):
        ground = image[:, 0, 0]  # never part of a shape
        far = abs(image - ground[:, None, None]).max(axis=0) > 2 * NOISE
        assert 0.05 < far.mean() < 0.6


@pytest.mark.parametrize("shape", range(5))
def test_stripes_leave_gaps(shape):
    samples = draw(400, seed=6)
    ground = samples.inputs[:, :, :1, :1].astype(int)
    area = (abs(samples.inputs - ground).max(axis=1) > 2 * NOISE).mean(axis=(1, 2))
    plain, striped = (area[samples.targets == 2 * shape + filling].mean() for filling in (0, 1))
    assert 0.35 < striped / plain < 0.65
    assert CLASSES[2 * shape].split()[1] == CLASSES[2 * shape + 1].split()[1]


def test_a_linear_classifier_cannot_learn_them():
    train, test = draw(2000), draw(500, seed=1)
    network = Network([Linear(10)], (3, 32, 32))
    history = fit(network, *train, epochs=5, lr=0.001, optimizer="adam", evaluate_on={"test": test})
    assert history.accuracy("test")[-1] < 0.25


def test_a_small_convolutional_network_can():
    """In the time that a test has; the whole set and 6 epochs give 90 %."""
    layers = [Conv2d(16, 5, stride=2), MaxPool2d(2), ReLU(), Linear(64), ReLU(), Linear(10)]
    train, test = draw(2000), draw(500, seed=1)
    network = Network(layers, (3, 32, 32))
    history = fit(network, *train, epochs=6, lr=0.003, optimizer="adam", evaluate_on={"test": test})
    assert history.accuracy("test")[-1] > 0.4
