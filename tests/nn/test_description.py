"""A network as data: every layer comes back as it was, and nothing else gets in."""

from __future__ import annotations

import json

import numpy as np
import pytest
from layer_table import CASES

from distnet.nn import Layer, Linear, Network, ReLU, Residual, Sequential
from distnet.nn.description import describe, rebuild


class Doubled(Layer):
    """A layer of a user's own."""

    kind = "doubled"

    def __init__(self, factor: float = 2.0) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x, out=None, at=None):
        return np.multiply(x, self.factor, out=self.output(x.shape, out))


def through_json(network: Network) -> Network:
    return rebuild(json.loads(json.dumps(describe(network))))


def assert_alike(one: Network, other: Network) -> None:
    assert [slot.name for slot in one.parameters.slots] == [s.name for s in other.parameters.slots]
    other.parameters.load(one.parameters.named() | one.parameters.named_statistics())
    x = np.random.default_rng(0).random((3, *one.input_shape)).astype(one.dtype)
    np.testing.assert_array_equal(one.predict(x), other.predict(x))
    assert describe(one) == describe(other)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_layer_comes_back(case):
    network = Network([case.make()], case.shape, dtype=np.float64)
    assert_alike(network, through_json(network))


def test_containers_made_of_generators_come_back():
    inner = Sequential(layer for layer in [ReLU(), Linear(4)])
    layers = [Linear(4), Residual((layer for layer in [inner]), shortcut=iter([Linear(4)]))]
    network = Network(iter(layers), (5,))
    assert_alike(network, through_json(network))


def test_a_layer_of_a_users_own_is_found_by_its_name():
    network = Network([Doubled(np.float32(1.5)), Linear(2)], (3,))
    assert_alike(network, through_json(network))


def test_a_class_that_is_defined_again_is_the_newest():
    def define(factor):
        class Again(Doubled):
            def __init__(self):
                super().__init__(factor)

        return Again

    first, second = define(2.0), define(3.0)
    network = Network([first(), Linear(2)], (3,))
    assert type(through_json(network).body.layers[0]) is second


def test_a_layer_with_the_name_of_one_of_ours_is_refused():
    """It came back as ours, which computes something else."""
    own = type("Tanh", (Layer,), {"forward": lambda self, x, out=None, at=None: 2 * x})
    with pytest.raises(ValueError, match="Tanh: found a layer of your own with the name of one of"):
        describe(Network([own()], (3,)))


def test_an_argument_that_a_file_cannot_hold():
    network = Network([Doubled(np.ones(3))], (3,))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="Doubled: found an argument of type ndarray"):
        describe(network)


def nested(depth: int) -> dict:
    layer: dict = {"layer": "ReLU", "args": [], "kwargs": {}}
    for _ in range(depth):
        layer = {"layer": "Sequential", "args": [[layer]], "kwargs": {}}
    return {"input_shape": [3], "dtype": "float32", "layers": [layer]}


RELU = {"layer": "ReLU", "args": [], "kwargs": {}}
GOOD = {"input_shape": [3], "dtype": "float32", "layers": [RELU]}


@pytest.mark.parametrize(
    "damaged",
    [
        {},
        GOOD | {"layers": None},
        GOOD | {"layers": [7]},
        GOOD | {"layers": [RELU | {"layer": "Unknown"}]},
        GOOD | {"layers": [RELU | {"layer": "Layer"}]},
        GOOD | {"layers": [RELU | {"args": [1, 2, 3]}]},
        GOOD | {"layers": [RELU | {"kwargs": {"unknown": 1}}]},
        GOOD | {"layers": [{"layer": "Linear", "args": [-1], "kwargs": {}}]},
        GOOD | {"layers": [{"layer": "Linear", "args": ["x"], "kwargs": {}}]},
        GOOD | {"layers": [{"layer": "Linear", "args": [10**30], "kwargs": {}}]},
        GOOD | {"input_shape": "abc"},
        GOOD | {"input_shape": [0]},
        GOOD | {"dtype": "object"},
        GOOD | {"dtype": "no type"},
        nested(5000),
    ],
    ids=map(str, range(15)),
)
def test_what_is_no_description_is_refused_in_one_line(damaged):
    with pytest.raises(ValueError) as caught:
        rebuild(damaged)
    assert str(caught.value).isprintable()


def test_a_size_that_the_file_does_not_have_is_refused_before_there_is_memory_for_it():
    linear = {"layer": "Linear", "args": [10**15], "kwargs": {}}
    with pytest.raises(ValueError, match="found a network of 4000000000000000 parameters"):
        rebuild(GOOD | {"layers": [linear]}, num_values=20)


def test_the_good_one_is_good():
    assert rebuild(GOOD).predict(np.ones((1, 3), np.float32)).shape == (1, 3)
