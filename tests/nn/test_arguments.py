"""Arguments of layers: right, or one line that says what was found and what is expected."""

import numpy as np
import pytest

from distnet.nn import (
    BatchNorm,
    Conv2d,
    Dropout,
    LeakyReLU,
    Linear,
    LocalResponseNorm,
    Network,
    ReLU,
    Residual,
    Sequential,
    Standardize,
    arguments,
)


@pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3), np.array(3)])
def test_whole_numbers_of_any_integer_type(value):
    found = arguments.whole("Layer", "size", value)
    assert (found, type(found)) == (3, int)


@pytest.mark.parametrize("value", [0, -1, 2.0, True, np.True_, "3", None, float("nan"), [3]])
def test_whole_refuses_all_else(value):
    with pytest.raises(
        ValueError, match=r"Layer: found size .*, expected a whole number of at lea"
    ):
        arguments.whole("Layer", "size", value)


@pytest.mark.parametrize("value", [2, (2, 2), [2, 2], np.array([2, 2]), (np.int32(2), 2), (2,)])
def test_pairs(value):
    found = arguments.pair("Layer", "kernel", value)
    assert found == (2, 2)
    assert all(type(number) is int for number in found)


@pytest.mark.parametrize("value", [(), (1, 2, 3), (1, 0), "22", None, ((1, 1), (1, 1)), (1, 1.5)])
def test_pair_refuses_all_else(value):
    with pytest.raises(ValueError, match=r"Layer: found kernel .*, expected .*, or two of them"):
        arguments.pair("Layer", "kernel", value)


@pytest.mark.parametrize("value", [1, 1.0, np.float32(1), np.int8(1), np.float64(1)])
def test_real_numbers(value):
    found = arguments.real("Layer", "slope", value)
    assert (found, type(found)) == (1.0, float)


@pytest.mark.parametrize("value", [True, "1", None, float("nan"), float("inf"), 1j, [1.0]])
def test_real_refuses_all_else(value):
    with pytest.raises(ValueError, match=r"Layer: found slope .*, expected a finite number"):
        arguments.real("Layer", "slope", value)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Linear(0), "Linear: found out_features 0, expected a whole number of at least 1"),
        (lambda: Linear(True), "Linear: found out_features True, expected a whole number"),
        (lambda: Linear(2.5), "Linear: found out_features 2.5, expected a whole number"),
        (lambda: Linear(5, init=-1), "Linear: found init -1, expected 'he', 'xavier', 'xavi"),
        (
            lambda: Linear(5, init=float("nan")),
            "Linear: found init nan, expected 'he', 'xavier'",
        ),
        (lambda: Linear(5, init="hee"), "Linear: found init 'hee', expected 'he', 'xavier', 'xa"),
        (lambda: BatchNorm(momentum=2), r"BatchNorm: found momentum 2, expected .* in \[0, 1\]"),
        (lambda: BatchNorm(eps=-1), "BatchNorm: found eps -1, expected a number of at least 0"),
        (lambda: BatchNorm(eps=np.nan), "BatchNorm: found eps nan, expected a number of at least"),
        (lambda: Conv2d(0, 3), "Conv2d: found filters 0, expected a whole number of at least 1"),
        (lambda: Conv2d(2, 3, stride=0), "Conv2d: found stride 0, expected a whole number of at"),
        (lambda: Conv2d(2, 3, pad=-1), "Conv2d: found pad -1, expected a whole number of at least"),
        (
            lambda: Conv2d(2, (3, 0)),
            r"Conv2d: found kernel \(3, 0\), expected a whole number of at",
        ),
        (lambda: Conv2d(2, 3, init="x"), "Conv2d: found init 'x', expected 'he', 'xavier'"),
        (lambda: LocalResponseNorm(0), "LocalResponseNorm: found size 0, expected a whole number"),
        (lambda: LocalResponseNorm(k=0), "LocalResponseNorm: found k 0, expected a number above"),
        (lambda: LeakyReLU("0.1"), "LeakyReLU: found slope '0.1', expected a finite number"),
        (lambda: Standardize([0], [0]), "Standardize: found std 0, expected a number above 0"),
        (lambda: Standardize([0], [1, 2]), "Standardize: found std .*, expected as many numbers"),
        (
            lambda: Sequential(ReLU()),
            r"Sequential: found layers ReLU\(\), expected a list, such as",
        ),
        (lambda: Residual(ReLU()), r"found layers ReLU\(\), expected a list, such as \[ReLU\(\)\]"),
        (lambda: Network(ReLU(), (3,)), r"found layers ReLU\(\), expected a list"),
        (lambda: Network([], (3,), dtype=int), "Network: found dtype 'int64', expected float32 or"),
        (lambda: Network([], (3,), seed=-1), "Network: found seed -1, expected a whole number of"),
        (
            lambda: Network([], (3,), seed=1.5),
            "Network: found seed 1.5, expected a whole number of",
        ),
        (lambda: Network([], (3,), seed=2**64), "Network: found seed 18446744073709551616, expect"),
        (lambda: Dropout(1), r"Dropout: found ratio 1, expected a number in \[0, 1\)"),
        (lambda: Dropout(True), r"Dropout: found ratio True, expected a number in \[0, 1\)"),
    ],
)
def test_layers_refuse_what_they_cannot_be(make, message):
    with pytest.raises(ValueError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_numpy_numbers_give_the_same_network():
    plain = Network([BatchNorm(momentum=0.5), Linear(4, init=0.5), Dropout(0.25)], (3,))
    layers = [BatchNorm(momentum=np.float32(0.5)), Linear(np.int64(4), init=np.float64(0.5))]
    other = Network([*layers, Dropout(np.float16(0.25))], (3,))
    np.testing.assert_array_equal(other.parameters.values, plain.parameters.values)
    x = np.ones((2, 3), np.float32)
    np.testing.assert_array_equal(other.predict(x), plain.predict(x))
