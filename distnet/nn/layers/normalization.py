"""Normalisation: over the batch (book section 6.3), and over neighbouring channels."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import DTypeLike

from distnet.base.arithmetic import portable
from distnet.base.arrays import Array, Shape
from distnet.base.keys import MicroBatch
from distnet.nn import arguments, channels, layout
from distnet.nn.initializers import constant
from distnet.nn.layer import Layer
from distnet.nn.parameters import Parameter, Statistic


@portable
class BatchNorm(Layer):
    """y = gamma (x - mean) / sqrt(var + eps) + beta for `(N, C, H, W)` or `(N, C)`, per channel C.

    Batch normalisation (Ioffe & Szegedy 2015, algorithms 1 and 2; book section 6.3).

    In training, mean and (biased) variance are those of the *micro-batch*, the unit of work, as in
    ghost batch normalisation (Hoffer et al. 2017, algorithm 1): the output of a micro-batch depends
    on nothing that another rank computes. With a micro-batch as large as the batch this is the
    book's layer.

    In evaluation they are running averages over the *global* batches, exact whatever the
    micro-batches and ranks: running = `momentum` running + (1 - momentum) of the batch. (In PyTorch
    `momentum` is the share of the batch.) The variance that is averaged is the unbiased one, whose
    divisor is the number of values less 1, as in PyTorch and so in published weights;
    `unbiased=False` averages the biased one, as the book and ONNX do. Frozen (`Network.freeze`), it
    uses the running averages in training as well, and leaves them alone.
    """

    kind = "batchnorm"
    in_place = True

    def __init__(self, *, momentum: float = 0.9, eps: float = 1e-5, unbiased: bool = True) -> None:
        super().__init__()
        self.momentum = arguments.real(
            "BatchNorm", "momentum", momentum, "a number in [0, 1]", lambda m: 0 <= m <= 1
        )
        self.eps = arguments.real(
            "BatchNorm", "eps", eps, "a number of at least 0", lambda e: e >= 0
        )
        self.unbiased = unbiased

    def build(self, shape: Shape, dtype: DTypeLike = np.float32) -> Shape:
        super().build(shape, dtype)
        c = shape[0]
        self.gamma = Parameter((c,), constant(1), decays=False)
        self.beta = Parameter((c,), constant(0), decays=False)
        self.running_mean = Statistic((c,), 0.0)
        self.running_var = Statistic((c,), 1.0, batch_size=c + 1)
        return shape

    def parameters(self) -> Iterator[tuple[str, Parameter]]:
        yield "gamma", self.gamma
        yield "beta", self.beta

    def statistics(self) -> Iterator[tuple[str, Statistic]]:
        yield "running_mean", self.running_mean
        yield "running_var", self.running_var

    def forward(self, x: Array, out: Array | None = None, at: MicroBatch | None = None) -> Array:
        if self.running_mean.is_frozen:
            at = None
        self.is_training = at is not None
        xn = self.normalized = self.memory.array("normalized", x.shape, self.dtype)
        beta = self.beta.value
        if at:
            mean, var = self._centre(x, xn)
            self.contribute(mean, var, at.share, num_values=x.size // x.shape[1])
            std = np.sqrt(var + self.eps)
        else:
            mean = self.running_mean.value
            np.subtract(x, self._column(mean, x), out=xn)
            std = np.sqrt(self.running_var.value + self.eps)
            # What the rounded mean that was subtracted leaves, in the units of xn.
            self.rest = (mean.astype(self.dtype) - mean) / std
            beta = beta + self.gamma.value * self.rest
        self.inverse_std = self._column(1 / std, x)
        np.multiply(xn, self.inverse_std, out=xn)
        y = self.output(x.shape, out)
        np.multiply(xn, self._column(self.gamma.value, x), out=y)
        return np.add(y, self._column(beta, x), out=y)

    def backward(self, dy: Array, out: Array | None = None, need_dx: bool = True) -> Array | None:
        product = self.memory.temporary(dy.shape, self.dtype)
        self.beta.grad[...] = channels.sums(dy, self.arithmetic, product)
        self.gamma.grad[...] = channels.products(dy, self.normalized, self.arithmetic, product)
        if not self.is_training:
            self.gamma.grad += self.rest * self.beta.grad
        if not need_dx:
            return None
        dx = self.input_gradient(dy.shape, out)
        gain = self._column(self.gamma.value, dy) * self.inverse_std
        if not self.is_training:
            return np.multiply(dy, gain, out=dx)
        num_values = dy.size // dy.shape[1]
        np.multiply(self.normalized, self._column(self.gamma.grad / num_values, dy), product)
        np.subtract(dy, self._column(self.beta.grad / num_values, dy), out=dx)
        np.subtract(dx, product, out=dx)
        return np.multiply(dx, gain, out=dx)

    def update_statistics(self) -> None:
        if self.running_mean.is_frozen:
            return
        shift, square = self.running_mean.batch, self.running_var.batch[:-1]
        inverse_count = self.running_var.batch[-1]
        if inverse_count == 0:  # no micro-batch was in training mode
            return
        var = np.maximum(square - np.square(shift), 0)
        if self.unbiased and inverse_count < 1:
            var /= 1 - inverse_count
        rate = 1 - self.momentum
        self.running_mean.value += rate * shift
        self.running_var.value += rate * (var - self.running_var.value)

    def contribute(self, mean: Array, var: Array, share: float, num_values: int) -> None:
        """What the micro-batch adds to the sums over the global batch, weighted by its share.

        Moments are taken about the running mean, which all ranks have in common: about zero, the
        variance of features whose mean is far larger than their spread would cancel.
        """
        var = var - np.square(mean - mean.astype(self.dtype))  # it was taken about the rounded mean
        shift = mean - self.running_mean.value
        np.multiply(share, shift, out=self.running_mean.batch)
        np.multiply(share, var + np.square(shift), out=self.running_var.batch[:-1])
        self.running_var.batch[-1] = share * share / num_values  # in sum: 1 / values of the batch

    def _centre(self, x: Array, out: Array) -> tuple[Array, Array]:
        """Mean and biased variance `(C,)`, float64; `out` becomes x - mean."""
        num_values = x.size // x.shape[1]
        scratch = self.memory.temporary(x.shape, self.dtype)
        mean = channels.sums(x, self.arithmetic, scratch) / num_values
        np.subtract(x, self._column(mean, x), out=out)
        if not self.arithmetic.rounds:
            # The sum lost bits if the mean is far larger than the spread; that of the differences
            # does not (corrected two-pass algorithm: Chan, Golub & LeVeque 1983).
            rest = channels.sums(out, self.arithmetic, scratch) / num_values
            mean = mean.astype(self.dtype) + rest
        return mean, channels.products(out, out, self.arithmetic, scratch) / num_values

    def _column(self, per_channel: Array, like: Array) -> Array:
        """Shaped to broadcast over (N, C) or (N, C, H, W), in the layer's dtype.

        For images once for each of the N: in the engine's memory order a pixel of all of them is
        then one run of N C numbers, for `like` and for what it is combined with. Where two such
        runs fit into NumPy's buffer, it would copy the shorter operand there again and again, so
        then once for each pixel of a row as well.
        """
        if like.ndim == 2:
            return per_channel.astype(self.dtype)
        n, c, h, w = like.shape
        is_copied = 2 * n * c <= np.getbufsize() and h > 1
        column = layout.empty((n, c, 1, w if is_copied else 1), self.dtype)
        column[...] = per_channel[:, np.newaxis, np.newaxis]
        return column


@portable
class LocalResponseNorm(Layer):
    """y = x (k + alpha / n * S)^-beta, with S the sum of x^2 over n neighbouring channels.

    For `(N, C, H, W)` or `(N, C)`. The neighbours of channel c are c - n // 2 to c + (n - 1) // 2,
    fewer at both ends. Krizhevsky et al. 2012, section 3.3, without the division of alpha by n:
    PyTorch and ONNX have it, so the paper's alpha is to be multiplied by its n = 5 here.
    """

    kind = "lrn"

    def __init__(
        self, size: int = 5, *, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
    ) -> None:
        super().__init__()
        owner = "LocalResponseNorm"
        self.size = arguments.whole(owner, "size", size)
        at_least_0 = "a number of at least 0"
        self.alpha = arguments.real(owner, "alpha", alpha, at_least_0, lambda a: a >= 0)
        self.beta = arguments.real(owner, "beta", beta)
        self.k = arguments.real(owner, "k", k, "a number above 0", lambda k: k > 0)

    def forward(self, x: Array, out: Array | None = None, at: MicroBatch | None = None) -> Array:
        self.x = x
        term = np.multiply(x, x, out=self.memory.temporary(x.shape, self.dtype))
        base = self.base = self.memory.array("base", x.shape, self.dtype)
        self._sum_neighbours(term, base, reach=(self.size // 2, (self.size - 1) // 2))
        np.multiply(base, self.alpha / self.size, out=base)
        np.add(base, self.k, out=base)
        # base ** -beta: np.power takes ten times as long as these two, which run on SIMD.
        factor = self.factor = self.memory.array("factor", x.shape, self.dtype)
        self.arithmetic.log(base, out=factor)
        np.multiply(factor, -self.beta, out=factor)
        self.arithmetic.exp(factor, out=factor)
        return np.multiply(x, factor, out=self.output(x.shape, out))

    def backward(self, dy: Array, out: Array | None = None, need_dx: bool = True) -> Array | None:
        """dx_c = dy_c f_c - 2 alpha beta / n * x_c * (sum of dy_i x_i f_i / b_i), f = b^-beta.

        The sum is over the channels i whose neighbour c is.
        """
        if not need_dx:
            return None
        term = np.multiply(dy, self.x, out=self.memory.temporary(dy.shape, self.dtype))
        np.multiply(term, self.factor, out=term)
        np.divide(term, self.base, out=term)
        dx = self.input_gradient(dy.shape, out)
        self._sum_neighbours(term, dx, reach=((self.size - 1) // 2, self.size // 2))
        np.multiply(dx, self.x, out=dx)
        np.multiply(dx, -2 * self.alpha * self.beta / self.size, out=dx)
        np.multiply(dy, self.factor, out=term)
        return np.add(dx, term, out=dx)

    @staticmethod
    def _sum_neighbours(terms: Array, out: Array, reach: tuple[int, int]) -> None:
        """For each channel c, the sum of `terms` over channels c - reach[0] to c + reach[1]."""
        np.copyto(out, terms)
        num_channels = terms.shape[1]
        for distance in range(1, min(max(reach) + 1, num_channels)):
            if distance <= reach[0]:
                out[:, distance:] += terms[:, :-distance]
            if distance <= reach[1]:
                out[:, :-distance] += terms[:, distance:]
