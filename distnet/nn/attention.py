"""Attention: which of many vectors a query is about, as weights that add up to 1 (8.4.3)."""

from __future__ import annotations

import math

from distnet.base.arithmetic import FLOAT, Arithmetic, rounded
from distnet.base.arrays import Array
from distnet.nn.losses import softmax


class Attention:
    """Queries q `(N, T, D)` and keys k `(N, P, D)` to mean keys y `(N, T, D)`.

        a = softmax(q k^T / sqrt(D)) over the P keys        y = a k

    Scaled dot-product attention (Vaswani et al. 2017, arXiv:1706.03762, equation 1) in which the
    keys are the values, as in Luong, Pham and Manning 2015, arXiv:1508.04025, section 3.1.
    Backward, with s = q k^T / sqrt(D):

        da = dy k^T        ds = a (da - sum over P of a da)
        dq = ds k / sqrt(D)        dk = ds^T q / sqrt(D) + a^T dy

    weights: a `(N, T, P)` of the last forward pass: what one looks at to see where it looked.
    """

    def __init__(self, arithmetic: Arithmetic = FLOAT) -> None:
        self.arithmetic = arithmetic

    def forward(self, queries: Array, keys: Array) -> Array:
        arithmetic, d = self.arithmetic, keys.shape[2]
        arithmetic.check_terms("Attention", max(d, keys.shape[1], queries.shape[1]))
        self.scale = queries.dtype.type(1 / math.sqrt(d))
        self.queries, self.keys = rounded(queries, arithmetic), rounded(keys, arithmetic)
        scores = self.queries @ self.keys.transpose(0, 2, 1)
        self.weights = softmax(scores * self.scale, arithmetic)
        return rounded(self.weights, arithmetic) @ self.keys

    def backward(self, dy: Array) -> tuple[Array, Array]:
        """The gradients of the queries and of the keys."""
        a, arithmetic = self.weights, self.arithmetic
        dy = rounded(dy, arithmetic)
        da = dy @ self.keys.transpose(0, 2, 1)
        ds = a * (da - arithmetic.sum(a * da, axis=2, keepdims=True)) * self.scale
        ds = rounded(ds, arithmetic)
        of_values = rounded(a, arithmetic).transpose(0, 2, 1) @ dy
        return ds @ self.keys, ds.transpose(0, 2, 1) @ self.queries + of_values
