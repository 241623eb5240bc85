"""The small worked examples of chapters 3 and 4, with the numbers that the book's code prints."""

import numpy as np
import pytest

from distnet.nn import Linear, MicroBatch, Network, Sigmoid
from distnet.nn.gradient_check import numerical_gradient
from distnet.objectives import Classification


def test_the_network_of_three_layers():
    """Section 3.4: 2-3-2-2 with sigmoids and the identity at the end."""
    layers = [Linear(3), Sigmoid(), Linear(2), Sigmoid(), Linear(2)]
    net = Network(layers, (2,), dtype=np.float64)
    net.parameters.load(
        {
            "linear1.weight": np.array([[0.1, 0.3, 0.5], [0.2, 0.4, 0.6]]),
            "linear1.bias": np.array([0.1, 0.2, 0.3]),
            "linear2.weight": np.array([[0.1, 0.4], [0.2, 0.5], [0.3, 0.6]]),
            "linear2.bias": np.array([0.1, 0.2]),
            "linear3.weight": np.array([[0.1, 0.3], [0.2, 0.4]]),
            "linear3.bias": np.array([0.1, 0.2]),
        }
    )
    y = net.predict(np.array([[1.0, 0.5]]))
    np.testing.assert_allclose(y, [[0.31682708, 0.69627909]], rtol=0, atol=1e-7)


@pytest.mark.parametrize(("at", "printed"), [(5.0, 0.1999999999990898), (10.0, 0.2999999999986347)])
def test_numerical_differentiation(at, printed):
    """Section 4.3: f(x) = 0.01 x^2 + 0.1 x, with h = 1e-4."""
    x = np.array([at])
    slope = numerical_gradient(lambda: 0.01 * x[0] ** 2 + 0.1 * x[0], x, h=1e-4)
    np.testing.assert_allclose(slope, printed, rtol=0, atol=1e-7)


def sum_of_squares_gradient(x):
    return numerical_gradient(lambda: float(np.sum(x**2)), x, h=1e-4)


@pytest.mark.parametrize("at", [(3.0, 4.0), (0.0, 2.0), (3.0, 0.0)])
def test_the_gradient_of_a_sum_of_squares(at):
    """Section 4.4."""
    x = np.array(at)
    np.testing.assert_allclose(sum_of_squares_gradient(x), 2 * x, rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    ("lr", "printed", "digits"),
    [
        (0.1, [-6.111e-10, 8.148e-10], 4),
        (1e-10, [-2.99999994, 3.99999992], 9),
        (10, [-2.58983747e13, -1.29524862e12], 9),  # too large: where rounding errors take it
    ],
)
def test_gradient_descent(lr, printed, digits):
    """Section 4.4.1: 100 steps from (-3, 4)."""
    x = np.array([-3.0, 4.0])
    for _ in range(100):
        x -= lr * sum_of_squares_gradient(x)
    np.testing.assert_allclose(x, printed, rtol=10.0 ** (1 - digits))


def test_the_gradient_of_a_single_layer():
    """Section 4.4.2: weights of 2 x 3, one sample, softmax and cross-entropy."""
    net = Network([Linear(3, bias=False)], (2,), dtype=np.float64)
    weight = [[0.47355232, 0.9977393, 0.84668094], [0.85557411, 0.03563661, 0.69422093]]
    net.parameters.load({"linear1.weight": np.array(weight)})
    x = np.array([[0.6, 0.9]])
    logits = net.predict(x)
    np.testing.assert_allclose(logits, [[1.05414809, 0.63071653, 1.1328074]], rtol=0, atol=1e-7)
    loss, correct = Classification(net).gradients(x, np.array([2]), MicroBatch())
    printed = -np.log(np.exp(-loss) + 1e-7)  # the book adds 1e-7 inside the logarithm
    assert (printed, correct) == (pytest.approx(0.92806828, abs=1e-8), 1)
    expected = [[0.21924757, 0.14356243, -0.36281], [0.32887136, 0.21534364, -0.544215]]
    np.testing.assert_allclose(net.parameters.grads.reshape(2, 3), expected, rtol=0, atol=1e-6)
