"""LocalResponseNorm against the sum written out, and against PyTorch's numbers."""

import numpy as np
import pytest
from layer_table import build, images

from distnet.nn import LocalResponseNorm


def written_out(x, n, alpha, beta, k):
    y = np.empty_like(x)
    for c in range(x.shape[1]):
        neighbours = x[:, max(0, c - n // 2) : c + (n - 1) // 2 + 1]
        y[:, c] = x[:, c] / (k + alpha / n * (neighbours**2).sum(axis=1)) ** beta
    return y


@pytest.mark.parametrize("shape", [(2, 7, 3, 2), (3, 5), (2, 1, 2, 2)])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 20])
def test_values(shape, size):
    options = {"alpha": 0.7, "beta": 0.6, "k": 1.5}
    layer, x = build(LocalResponseNorm(size, **options), shape[1:]), images(shape)
    np.testing.assert_allclose(
        layer.forward(x), written_out(x, size, *options.values()), rtol=1e-13
    )


def test_values_are_those_of_pytorch():
    """torch.nn.functional.local_response_norm(x, 4, alpha=2.0, beta=0.75, k=1.0) of 0.1 to 2.4."""
    x = np.arange(1, 25).reshape(1, 6, 2, 2) / 10
    layer = build(LocalResponseNorm(4, alpha=2.0, beta=0.75, k=1.0), x.shape[1:])
    y = layer.forward(x).reshape(6, 4)
    np.testing.assert_allclose(y[0], [0.09124124, 0.17443919, 0.24784432, 0.31078780], atol=1e-8)
    np.testing.assert_allclose(y[3], [0.47576866, 0.47048438, 0.46400252, 0.45675810], atol=1e-8)
    np.testing.assert_allclose(y[5], [0.58511809, 0.57243386, 0.56015216, 0.54831039], atol=1e-8)


def test_with_alpha_zero_only_k_is_left():
    layer, x = build(LocalResponseNorm(alpha=0, k=4, beta=0.5), (3, 2, 2)), images((2, 3, 2, 2))
    np.testing.assert_allclose(layer.forward(x), x / 2, rtol=1e-14)


def test_backward_can_be_called_again():
    layer, x = build(LocalResponseNorm(alpha=1), (6, 2, 2)), images((2, 6, 2, 2))
    dy = layer.forward(x).copy()
    dx = layer.backward(dy).copy()
    np.testing.assert_array_equal(layer.backward(dy), dx)
