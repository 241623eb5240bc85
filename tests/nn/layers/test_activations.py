"""ReLU, LeakyReLU, Sigmoid and Tanh: values, extremes, and the derivative where it jumps."""

import numpy as np
import pytest
from layer_table import build

from distnet.nn import LeakyReLU, ReLU, Sigmoid, Tanh

X = np.array([[-1000.0, -30.0, -1.0, -1e-3, 0.0, 1e-3, 1.0, 30.0, 1000.0]])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("layer", "function", "derivative"),
    [
        (ReLU, lambda x: np.where(x > 0, x, 0), lambda x: np.where(x > 0, 1, 0)),
        (LeakyReLU, lambda x: np.where(x > 0, x, x / 100), lambda x: np.where(x > 0, 1, 0.01)),
        (Sigmoid, lambda x: 1 / (1 + np.exp(-x)), lambda x: 1 / (2 * np.cosh(x / 2)) ** 2),
        (Tanh, np.tanh, lambda x: 1 / np.cosh(x) ** 2),
    ],
)
def test_values_and_derivatives(layer, function, derivative, dtype):
    layer, x = build(layer(), X.shape[1:], dtype), X.astype(dtype)
    with np.errstate(over="ignore"):  # of the textbook's formulas, not of ours
        y, dx = function(X), derivative(X)
    eps = 4 * np.finfo(dtype).eps
    np.testing.assert_allclose(layer.forward(x), y, rtol=eps, atol=eps)
    np.testing.assert_allclose(layer.backward(np.ones_like(x)), dx, rtol=eps, atol=eps)


@pytest.mark.parametrize("layer", [Sigmoid, Tanh])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_saturation_is_exact_and_silent(layer, dtype):
    layer = build(layer(), (2,), dtype)
    with np.errstate(all="raise"):
        y = layer.forward(np.array([[-1000.0, 1000.0]], dtype))
        dx = layer.backward(np.ones((1, 2), dtype))
    assert y[0, 1] == 1
    assert y[0, 0] == (0 if isinstance(layer, Sigmoid) else -1)
    np.testing.assert_array_equal(dx, 0)


@pytest.mark.parametrize(("dtype", "lowest"), [(np.float32, -87), (np.float64, -708)])
def test_sigmoid_of_negative_numbers_keeps_all_digits(dtype, lowest):
    """sigmoid(x) = exp(x) / (1 + exp(x)), and its derivative, are far below 1 but not 0 there."""
    x = np.linspace(lowest, -5, 100, dtype=dtype).reshape(1, -1)
    layer, exact = build(Sigmoid(), x.shape[1:], dtype), np.exp(x.astype(np.longdouble))
    exact /= 1 + exact
    digits = 4 * np.finfo(dtype).eps
    np.testing.assert_allclose(layer.forward(x), exact, rtol=digits)
    dx = layer.backward(np.ones_like(x))
    np.testing.assert_allclose(dx, exact * (1 - exact), rtol=digits)


def test_relu_has_no_gradient_at_zero():
    layer = build(ReLU(), (3,))
    layer.forward(np.array([[0.0, -0.0, 1.0]]))
    np.testing.assert_array_equal(layer.backward(np.ones((1, 3))), [[0, 0, 1]])


@pytest.mark.parametrize(("layer", "of_minus_one"), [(ReLU, 0), (LeakyReLU, -0.01)])
def test_relu_lets_nan_through(layer, of_minus_one):
    """A step that went wrong must show: the trainer looks for values that are not finite."""
    layer = build(layer(), (2,))
    y = layer.forward(np.array([[np.nan, -1.0]]))
    np.testing.assert_array_equal(y, [[np.nan, of_minus_one]])


def test_a_leaky_relu_of_any_slope():
    x = np.array([[-np.inf, -2.0, 0.0, 3.0, np.inf]])
    for slope, expected in [(0.5, [-np.inf, -1, 0, 3, np.inf]), (2, [-np.inf, -4, 0, 3, np.inf])]:
        layer = build(LeakyReLU(slope), (5,))
        np.testing.assert_array_equal(layer.forward(x), [expected])
        dx = layer.backward(np.ones((1, 5)))
        np.testing.assert_array_equal(dx, [[slope, slope, slope, 1, 1]])
