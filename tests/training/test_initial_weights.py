"""A network starts from the weights of another, as far as they are those of its layers."""

from __future__ import annotations

import numpy as np

from distnet.nn import BatchNorm, Linear, Network, ReLU
from distnet.training.files.model_file import initialize, save


def network(num_classes: int, seed: int) -> Network:
    return Network([Linear(8), BatchNorm(), ReLU(), Linear(num_classes)], (5,), seed=seed)


def test_a_last_layer_of_another_size_is_begun_anew(tmp_path):
    """With its bias, and without those of the same size that belong to other weights."""
    path, source, target = tmp_path / "model", network(3, seed=1), network(4, seed=2)
    source.parameters.statistics[...] = 7
    save(source, path)
    fresh = network(4, seed=2).parameters.named()
    assert initialize(target, path) == (
        f"weights from {path} in 2 of 3 layers; begun anew, as they are not there in this shape: "
        "linear2"
    )
    for name, array in target.parameters.named().items():
        expected = fresh if name.startswith("linear2") else source.parameters.named()
        np.testing.assert_array_equal(array, expected[name])
    assert np.all(target.parameters.statistics == 7)


def test_the_same_network_takes_all(tmp_path):
    path, source, target = tmp_path / "model", network(3, seed=1), network(3, seed=2)
    save(source, path)
    assert initialize(target, path) == f"weights from {path} in 3 of 3 layers"
    np.testing.assert_array_equal(target.parameters.values, source.parameters.values)


def test_as_many_other_classes_are_told(tmp_path):
    path, target = tmp_path / "model", network(3, seed=2)
    save(network(3, seed=1), path, classes=("cat", "dog", "hen"))
    assert initialize(target, path).endswith("layers")  # whose own classes nobody has named
    target.classes = "cat", "cow", "hen"
    assert initialize(target, path).endswith("; class 1 is 'dog' there and 'cow' here")
    fewer = network(2, seed=2)
    fewer.classes = "cow", "dog"
    assert initialize(fewer, path).endswith("shape: linear2")
