"""Attention: where it looks, its gradients, and PyTorch's numbers."""

from __future__ import annotations

import numpy as np
import pytest

from distnet.base.arithmetic import Portable
from distnet.nn.attention import Attention
from distnet.nn.gradient_check import numerical_gradient, relative_error


def given(seed=0):
    """Queries (2, 3, 4), keys (2, 5, 4) and the gradient of what is found."""
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((2, n, 4)) for n in (3, 5, 3))


def test_weights_add_up_to_one_and_find_the_key_that_is_like_the_query():
    attention, (queries, keys, _) = Attention(), given()
    found = attention.forward(queries, keys)
    np.testing.assert_allclose(attention.weights.sum(axis=2), 1)
    np.testing.assert_allclose(found, attention.weights @ keys)
    assert (attention.weights > 0).all()
    sharp = attention.forward(1e4 * keys[:, [3]] / (keys[:, [3]] ** 2).sum(axis=2)[..., None], keys)
    nearest = (keys * keys[:, [3]]).sum(axis=2).argmax(axis=1)
    np.testing.assert_allclose(sharp[:, 0], keys[[0, 1], nearest])


def test_a_query_of_zeros_finds_the_mean():
    keys = next(given())
    np.testing.assert_allclose(
        Attention().forward(np.zeros((2, 1, 4)), keys), keys.mean(axis=1, keepdims=True)
    )


def test_gradients_equal_central_differences():
    attention, (queries, keys, dy) = Attention(), given()
    attention.forward(queries, keys)
    for array, found in zip((queries, keys), attention.backward(dy), strict=True):
        expected = numerical_gradient(
            lambda: float(np.vdot(attention.forward(queries, keys), dy)), array
        )
        assert relative_error(found, expected) < 1e-8
        assert relative_error(1.001 * found, expected) > 1e-5


def test_the_numbers_are_those_of_pytorch():
    torch = pytest.importorskip("torch", reason="compares with PyTorch, the extra `torch`")
    attention, (queries, keys, dy) = Attention(), given()
    found = attention.forward(queries, keys)
    q, k = (torch.from_numpy(each).requires_grad_() for each in (queries, keys))
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, k)
    expected.backward(torch.from_numpy(dy))
    np.testing.assert_allclose(found, expected.detach().numpy(), rtol=1e-11)
    for gradient, there in zip(attention.backward(dy), (q, k), strict=True):
        np.testing.assert_allclose(gradient, there.grad.numpy(), rtol=1e-9, atol=1e-13)


def test_float32_stays_float32():
    attention = Attention()
    queries, keys, dy = (each.astype(np.float32) for each in given())
    arrays = attention.forward(queries, keys), *attention.backward(dy)
    assert {array.dtype for array in arrays} == {np.dtype(np.float32)}


def test_portable_arithmetic_is_nearly_the_same():
    plain, portable, (queries, keys, dy) = Attention(), Attention(Portable(14)), given()
    np.testing.assert_allclose(
        portable.forward(queries, keys), plain.forward(queries, keys), atol=1e-3
    )
    for a, b in zip(portable.backward(dy), plain.backward(dy), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-3)
    with pytest.raises(ValueError, match="Attention: found sums of"):
        Attention(Portable(16)).forward(np.zeros((1, 2**22, 1)), np.zeros((1, 1, 1)))
