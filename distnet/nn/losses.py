"""Softmax and the cross-entropy of its output (book sections 3.5, 4.2 and appendix A)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from distnet.base.arithmetic import FLOAT, Arithmetic
from distnet.base.arrays import Array, Shape
from distnet.base.errors import DataError
from distnet.nn import layout


def softmax(x: Array, arithmetic: Arithmetic = FLOAT) -> Array:
    """exp(x) / sum(exp(x)) over the last axis, shifted by the maximum so that nothing overflows."""
    e = arithmetic.exp(x - _largest(x))
    return e / arithmetic.sum(e, axis=-1, keepdims=True)


def log_softmax(x: Array, arithmetic: Arithmetic = FLOAT) -> Array:
    """The logarithm of `softmax(x)`, finite even where that underflows."""
    shifted = x - _largest(x)
    sums = arithmetic.sum(arithmetic.exp(shifted), axis=-1, keepdims=True)
    return shifted - arithmetic.log(sums)


def _largest(x: Array) -> Array:
    """As `x.max(axis=-1, keepdims=True)`, which takes several times as long for short rows."""
    rows = x.reshape(-1, x.shape[-1])
    places = rows.argmax(axis=1)
    places += np.arange(0, rows.size, rows.shape[1])
    return rows.take(places).reshape(*x.shape[:-1], 1)


def log_mean_softmax(logits: Sequence[Array], arithmetic: Arithmetic = FLOAT) -> Array:
    """The logarithm of the mean of `softmax(x)` over all x `(..., K)` in `logits`, finite too."""
    logs = [log_softmax(x, arithmetic) for x in logits]
    largest = np.maximum.reduce(logs)
    total = np.zeros_like(largest)
    for log in logs:
        total += arithmetic.exp(log - largest)  # 1 for one of them
    return largest + arithmetic.log(total / len(logs))


class SoftmaxCrossEntropy:
    """-log softmax(x)[t], averaged over the global batch: the sum over the rows divided by `count`.

    Logits x `(N, K)`, labels t `(N,)` of integers in [0, K). Divided by the count of the *global*
    batch, losses and gradients of micro-batches add up to those of the batch.

    label_smoothing: e in the target (1 - e) onehot(t) + e / K (Szegedy et al. 2016,
    arXiv:1512.00567, section 7). class_weights: `(K,)`, by which each row counts, that of its
    label; what `count` has to be then is told by `weight_of`. arithmetic: that of the network.
    """

    def __init__(
        self,
        label_smoothing: float = 0.0,
        class_weights: Sequence[float] | Array | None = None,
        *,
        arithmetic: Arithmetic = FLOAT,
    ) -> None:
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing: found {label_smoothing}, expected 0 <= e < 1")
        self.smoothing, self.arithmetic = label_smoothing, arithmetic
        self.weights = None if class_weights is None else _checked_weights(class_weights)
        self._dx = np.empty(())

    def forward(self, x: Array, labels: Array, count: float | None = None) -> float:
        """The loss; `count` defaults to N. Raises DataError for a wrong shape or label."""
        return float(self.totals(self.losses(x, labels, count)))

    def totals(self, losses: Array) -> Array:
        """The sums over the last axis of what `losses` has of some rows, divided by the count."""
        sums: Array = self.arithmetic.sum(losses, axis=-1, dtype=np.float64)
        return sums / self.count

    def losses(self, x: Array, labels: Array, count: float | None = None) -> Array:
        """As `forward`, `(N,)`: what each row adds to the sum, which is not yet divided."""
        labels = np.asarray(labels)
        check_labels(labels, *x.shape)
        self.count = len(x) if count is None else count
        # In the order of memory that `at_labels` counts in, whatever that of x is.
        self.log_p = np.ascontiguousarray(log_softmax(x, self.arithmetic))
        self.labels = labels
        # Where they are in `log_p`, one row behind the other.
        self.at_labels = np.arange(0, x.size, x.shape[1]) + labels.astype(np.int64)
        losses = -self.log_p.take(self.at_labels)
        if self.smoothing:
            mean = self.arithmetic.sum(self.log_p, axis=1) / x.shape[1]
            losses = (1 - self.smoothing) * losses - self.smoothing * mean
        if self.weights is not None:
            losses = losses * self.weights[labels]
        return losses

    def backward(self, dloss: float = 1.0) -> Array:
        """dloss * (softmax(x) - target) / count, `(N, K)`, each row times its weight.

        The next call overwrites the result for logits of the same shape.
        """
        if self._dx.shape != self.log_p.shape or self._dx.dtype != self.log_p.dtype:
            self._dx = np.empty_like(self.log_p)
        dx = self.arithmetic.exp(self.log_p, out=self._dx)
        dx.reshape(-1)[self.at_labels] -= 1 - self.smoothing
        if self.smoothing:
            dx -= dx.dtype.type(self.smoothing / dx.shape[1])
        if self.weights is not None:
            dx *= self.weights[self.labels, None].astype(dx.dtype)
        return np.multiply(dx, dx.dtype.type(dloss / self.count), out=dx)

    def weight_of(self, labels: Array) -> float:
        """How much rows with these labels count together: their number, or the sum of weights."""
        if self.weights is None:
            return len(labels)
        return float(self.arithmetic.sum(self.weights[labels]))


class PixelCrossEntropy:
    """-log softmax(x)[t] of every pixel, divided by `count`: what segmentation is trained for.

    Logits x `(N, K, H, W)`, labels t `(N, H, W)` of integers in [0, K), or `ignored` where nobody
    knows or cares: such a pixel adds nothing to the loss, and its gradient is zero. `count` is the
    number of the other pixels in the *global* batch (Long et al. 2014, arXiv:1411.4038, section 4).
    arithmetic: that of the network.
    """

    def __init__(self, ignored: int = 255, *, arithmetic: Arithmetic = FLOAT) -> None:
        self.ignored, self.arithmetic = ignored, arithmetic

    def forward(self, x: Array, labels: Array, count: float | None = None) -> float:
        """The loss; `count` defaults to `weight_of(labels)`.

        Raises DataError for a wrong shape or label.
        """
        n, k, h, w = x.shape
        known = self.known_of(labels, x.shape)
        self.count = self.weight_of(labels) if count is None else count
        # One row for each class and one column for each pixel, in the order of the memory.
        logits = layout.native(x).reshape(-1, k).T.copy()  # (K, H * W * N)
        t = labels.transpose(1, 2, 0).ravel()
        self.known = known.transpose(1, 2, 0).ravel()
        self.of_labels = np.where(self.known, t, 0), np.arange(len(t))
        self.predicted = logits.argmax(axis=0).reshape(h, w, n).transpose(2, 0, 1)
        logits -= logits.max(axis=0)
        of_labels = logits[self.of_labels]
        self.p = self.arithmetic.exp(logits, out=logits)
        sums = self.arithmetic.sum(self.p, axis=0)
        self.p /= sums
        losses = self.arithmetic.log(sums) - of_labels
        return float(self.arithmetic.sum(losses[self.known], dtype=np.float64)) / self.count

    def backward(self, dloss: float = 1.0) -> Array:
        """dloss * (softmax(x) - onehot(t)) / count, `(N, K, H, W)`; zero at ignored pixels."""
        n, h, w = self.predicted.shape
        rows = self.p.copy()
        rows[self.of_labels] -= 1
        rows *= self.known * rows.dtype.type(dloss / self.count)
        dx = layout.empty((n, len(rows), h, w), rows.dtype)
        np.copyto(layout.native(dx), rows.T.reshape(h, w, n, -1))
        return dx

    def known_of(self, labels: Array, shape: Shape) -> Array:
        """Which pixels are not ignored, `(N, H, W)` bool, for logits of a shape `(N, K, H, W)`.

        Raises DataError for a wrong shape or label.
        """
        n, k, h, w = shape
        if labels.shape != (n, h, w):
            raise DataError(f"labels: found shape {labels.shape}, expected {(n, h, w)}")
        known: Array = labels != self.ignored
        _check_range(labels[known], k)
        return known

    def weight_of(self, labels: Array) -> float:
        """How many pixels are not ignored, but at least 1, to be divided by."""
        return max(1, int(np.count_nonzero(labels != self.ignored)))


def smooth_l1(difference: Array, beta: float = 1.0) -> tuple[Array, Array]:
    """d^2 / (2 beta) where |d| < beta, else |d| - beta / 2; and its derivative, between -1 and 1.

    Element by element (Girshick 2015, "Fast R-CNN", arXiv:1504.08083, equation 3, with beta = 1;
    Huber's loss is beta times as large). A box that is far off does not outweigh all others.
    """
    size = abs(difference)
    inner = size < beta
    losses = np.where(inner, difference * difference * (0.5 / beta), size - 0.5 * beta)
    return losses, np.clip(difference / beta, -1, 1)


def _checked_weights(weights: Sequence[float] | Array) -> Array:
    """As float64 (K,); raises ValueError unless all are finite and positive."""
    array = np.asarray(weights, np.float64)
    if array.ndim != 1 or not np.all((array > 0) & np.isfinite(array)):
        raise ValueError(f"class_weights: found {weights!r:.60}, expected positive numbers (K,)")
    return array


def check_labels(labels: Array, n: int, num_classes: int) -> None:
    """Raises DataError unless they are `(n,)`, whole numbers in [0, num_classes)."""
    if labels.shape != (n,):
        raise DataError(f"labels: found shape {labels.shape}, expected ({n},)")
    _check_range(labels, num_classes)


def _check_range(labels: Array, num_classes: int) -> None:
    if not labels.size:
        return
    if labels.dtype.kind not in "iu":  # True and False would be a mask
        raise DataError(f"labels: found {labels.dtype}, expected whole numbers")
    ends = [labels.max()] if labels.dtype.kind == "u" else [labels.min(), labels.max()]
    for label in map(int, ends):
        if not 0 <= label < num_classes:
            raise DataError(f"labels: found {label}, expected at least 0 and below {num_classes}")


def count_correct(x: Array, labels: Array) -> int:
    """How many rows of the logits `(N, K)` have their largest element at the label."""
    return int(np.count_nonzero(x.argmax(axis=1) == labels))


def binary_cross_entropy(
    logits: Array, target: float | Array, arithmetic: Arithmetic = FLOAT
) -> tuple[float, Array]:
    """-t log p - (1 - t) log(1 - p) with p = sigmoid(logit), summed; its gradient, p - t.

    target: t, from 0 to 1, one for all or one for each. Finite for logits of any size, since it is
    computed as max(x, 0) - x t + log(1 + exp(-|x|)). arithmetic: that of the network.
    """
    decay = arithmetic.exp(-np.abs(logits))
    losses = np.maximum(logits, 0) - logits * target + arithmetic.log1p(decay)
    p = np.where(logits >= 0, 1, decay) / (1 + decay)
    loss = float(arithmetic.sum(losses, None, dtype=np.float64))
    return loss, (p - target).astype(logits.dtype, copy=False)
