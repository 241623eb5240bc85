"""The experiments of section 8.1: requirements in quick mode, and the same numbers on two ranks."""

from pathlib import Path

import numpy as np
import pytest

from distnet.experiments import Lab, load
from distnet.models import DeepConvNet
from distnet.nn import Branches, Conv2d, Linear, ReLU, Residual
from distnet.parallel import SerialCommunicator

CHAPTER = Path(__file__).resolve().parents[2] / "docs" / "book" / "ch08"


@pytest.fixture
def alone(tmp_path):
    return Lab(SerialCommunicator(), tmp_path, quick=True)


@pytest.mark.parametrize("name", ["stacked_convolutions", "learning_rate_decay", "history"])
def test_requirements_hold(name, alone):
    script = load(CHAPTER / f"{name}.py")
    numbers = script.run(alone)
    verdicts = [alone.judge(required, numbers) for required in script.REQUIRED]
    assert [str(verdict) for verdict in verdicts if not verdict.holds] == []


@pytest.mark.mpi(min_size=2)
def test_ensemble_is_the_same_on_two_ranks(comm, alone, tmp_path):
    script = load(CHAPTER / "ensemble.py")
    together = script.run(Lab(comm, tmp_path, quick=True))
    assert together == script.run(alone)
    assert together["ensemble"] > together["best_member"]


@pytest.mark.mpi(min_size=2)
def test_augmentation_is_the_same_on_two_ranks(comm, alone, tmp_path):
    """60 epochs of 100 digits, every micro-batch with bits of its own."""
    script = load(CHAPTER / "data_augmentation.py")
    train, test = script.small_digits(alone, 100)
    lab = Lab(comm, tmp_path, quick=True)
    found = script.final_accuracy(lab, 0, script.change, train, test)
    assert found == script.final_accuracy(alone, 0, script.change, train, test)
    assert found != script.final_accuracy(alone, 0, None, train, test)


def test_halved_images_have_the_rounded_mean():
    halved = load(CHAPTER / "small_digits.py").halved
    image = np.array([[[[0, 1, 255, 255], [0, 1, 255, 254], [9, 9, 1, 0], [9, 9, 0, 0]]]], np.uint8)
    np.testing.assert_array_equal(halved(image), [[[[1, 255], [9, 0]]]])


def test_size_of_the_small_network():
    assert load(CHAPTER / "small_digits.py").SmallConvNet().parameters.values.size == 23_946


def test_misclassified_digits_are_those_that_differ_from_their_label():
    misclassified = load(CHAPTER / "misclassified_digits.py").misclassified
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (230, 1, 28, 28), np.uint8)
    network = DeepConvNet()
    predictions = network.predict(images.astype(np.float32) / 255).argmax(axis=1)
    labels = predictions.copy()
    labels[[3, 150, 229]] += 1
    expected = [[i, predictions[i] + 1, predictions[i]] for i in (3, 150, 229)]
    np.testing.assert_array_equal(misclassified(network, images, labels), expected)


def test_a_gradient_that_is_zero_at_the_rim_has_a_smaller_side():
    script = load(CHAPTER / "stacked_convolutions.py")
    gradient = np.zeros((11, 11))
    gradient[5, 5] = gradient[4, 5] = 1
    assert script.side_seen(gradient) == 3
    gradient[5, 8] = 1
    assert script.side_seen(gradient) == 7


def test_the_longest_way_through_a_network():
    depth = load(CHAPTER / "history.py").depth
    inner = Residual([Conv2d(2, 3, pad=1), ReLU(), Conv2d(2, 3, pad=1)], [Conv2d(2, 1)])
    layers = [Conv2d(2, 3, pad=1), inner, Branches([Conv2d(1, 1)], [inner]), Linear(3)]
    assert depth(layers) == 1 + 2 + 2 + 1


def test_networks_of_either_kind_have_the_same_layers():
    network = load(CHAPTER / "deep_residuals.py").network
    sizes = {network(3, *kind, 0).parameters.size for kind in ((True, False), (False, False))}
    assert len(sizes) == 1
    start = network(3, True, False, 0)
    x = np.random.default_rng(0).random((2, 1, 14, 14), np.float32)
    blocks = start.body.layers[3:-2]
    for layer in start.body.layers[:3]:
        x = layer.forward(x)
    before = x.copy()
    for layer in blocks:
        x = layer.forward(x)
    np.testing.assert_array_equal(x, before)  # it starts as a network without its blocks


@pytest.mark.mpi(min_size=2)
def test_transfer_is_the_same_on_two_ranks(comm, alone, tmp_path):
    script = load(CHAPTER / "transfer_learning.py")
    train, test = script.small_digits(alone, 500)
    few = script.some_of_each(script.only(train, range(5, 10)), 5, 0)
    found = []
    for lab in (alone, Lab(comm, tmp_path, quick=True)):
        network = script.network(1)
        network.freeze("conv")
        settings = {"steps": 10, "batch": 25, "seed": 3}
        found.append(
            script.accuracy(lab, network, few, script.only(test, range(5, 10)), **settings)
        )
        assert script.num_moved(network, script.network(1)) == 0
    assert found[0] == found[1]
