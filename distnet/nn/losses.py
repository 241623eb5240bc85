"""Softmax and the cross-entropy of its output (book sections 3.5, 4.2 and appendix A)."""

from __future__ import annotations

from typing import Any

import numpy as np

from distnet.base.arrays import Array, Shape
from distnet.nn import layout


def softmax(x: Array) -> Array:
    """exp(x) / sum(exp(x)) over the last axis, shifted by the maximum so that nothing overflows."""
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def log_softmax(x: Array) -> Array:
    """The logarithm of `softmax(x)`, finite even where that underflows."""
    shifted = x - x.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


class SoftmaxCrossEntropy:
    """-log softmax(x)[t], averaged over the global batch: the sum over the rows divided by `count`.

    Logits x `(N, K)`, labels t `(N,)` of integers in [0, K). Divided by the count of the *global*
    batch, losses and gradients of micro-batches add up to those of the batch.
    """

    def __init__(self) -> None:
        self._rows: dict[tuple[Shape, Any], Array] = {}

    def forward(self, x: Array, labels: Array, count: int | None = None) -> float:
        """The loss; `count` defaults to N. Raises ValueError for a wrong shape or label."""
        _check_labels(labels, *x.shape)
        self.count = len(x) if count is None else count
        self.log_p = log_softmax(x)
        self.of_labels = np.arange(len(x)), labels
        return -float(self.log_p[self.of_labels].sum(dtype=np.float64)) / self.count

    def backward(self, dloss: float = 1.0) -> Array:
        """dloss * (softmax(x) - onehot(t)) / count, `(N, K)`."""
        key = self.log_p.shape, self.log_p.dtype
        if key not in self._rows:
            self._rows[key] = layout.empty(*key)
        dx = np.exp(self.log_p, out=self._rows[key])
        dx[self.of_labels] -= 1
        return np.multiply(dx, dx.dtype.type(dloss / self.count), out=dx)


def _check_labels(labels: Array, n: int, num_classes: int) -> None:
    if labels.shape != (n,):
        raise ValueError(f"labels: found shape {labels.shape}, expected ({n},)")
    for label in (labels.min(initial=0), labels.max(initial=0)):
        if not 0 <= label < num_classes:
            raise ValueError(f"labels: found {label}, expected at least 0 and below {num_classes}")


def count_correct(x: Array, labels: Array) -> int:
    """How many rows of the logits `(N, K)` have their largest element at the label."""
    return int(np.count_nonzero(x.argmax(axis=1) == labels))
