"""What a device does besides matrix products: the meaning of each, by calls of an array module.

`cuda.py` has a kernel of its own for each, with the same bits. Images are `(G, N, H, W, C)`, G
micro-batches of N images each; every function sees each micro-batch by itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from distnet.base.arithmetic import DIGITS, LOWEST_EXPONENT, Arithmetic, bit_length
from distnet.device import images
from distnet.device.images import Windows
from distnet.nn.losses import SoftmaxCrossEntropy

WORK = 1 << 11  # terms of a sum that one group of a GPU's threads adds up, where it may be cut


class Kernels:
    """All of them, for an array module."""

    def __init__(self, xp: Any) -> None:
        self.xp = xp

    def matmul(self, a: Any, b: Any) -> Any:
        """The product of the last two axes, as by numpy.matmul, each array contiguous or turned."""
        return self.xp.matmul(a, b)

    def concatenate(self, arrays: Sequence[Any], axis: int) -> Any:
        """As numpy.concatenate. (That of CuPy has the host send a list, which no recording may.)"""
        shape = list(arrays[0].shape)
        shape[axis] = sum(each.shape[axis] for each in arrays)
        out = self.xp.empty(tuple(shape), arrays[0].dtype)
        along, start = self.xp.moveaxis(out, axis, 0), 0
        for each in arrays:
            stop = start + each.shape[axis]
            along[start:stop] = self.xp.moveaxis(each, axis, 0)
            start = stop
        return out

    def unit(self, x: Any, bits: int) -> Any:
        """As `base.arithmetic.grid_unit`: `(G, 1, ...)`, float64, each a power of two."""
        xp, axes = self.xp, tuple(range(1, x.ndim))
        largest = xp.max(xp.abs(x), axis=axes, keepdims=True).astype(np.float64)
        _, exponent = xp.frexp(largest)
        exponent = xp.maximum(exponent, LOWEST_EXPONENT) - bits
        return xp.ldexp(xp.ones_like(largest), exponent)

    def to_grid(self, x: Any, unit: Any) -> Any:
        """As `base.arithmetic.to_grid`: a new array, float64. unit: `(G, 1, ...)` or `(1, ...)`."""
        shift = unit * (1.5 * 2.0**52)
        return self.xp.subtract(self.xp.add(x, shift), shift)

    def terms(self, x: Any, count: int) -> Any:
        """`x` as so many terms of a sum, on a grid where that is exact."""
        return self.to_grid(x, self.unit(x, DIGITS - bit_length(count)))

    def relu_backward(self, dy: Any, y: Any) -> Any:
        """The gradient of max(x, 0), which is `y`."""
        return dy * (y > 0)

    def unroll(self, x: Any, windows: Windows) -> Any:
        """Images to rows, one for each window: `(G, R, N OH OW, KH KW CG)` for R groups of CG
        channels.
        """
        w, xp = windows, self.xp
        padded = xp.ascontiguousarray(images.padded(xp, x, w.pad, w.padded_size))
        size, n = padded.shape[:2]
        of_g, of_n, of_row, of_column, of_channel = padded.strides
        shape = (size, w.groups, n, *w.counts, *w.kernel, w.per_group)
        down, right = (s * of for s, of in zip(w.stride, (of_row, of_column), strict=True))
        lower, further = (d * of for d, of in zip(w.dilation, (of_row, of_column), strict=True))
        group = w.per_group * of_channel
        strides = (of_g, group, of_n, down, right, lower, further, of_channel)
        every = xp.lib.stride_tricks.as_strided(padded, shape, strides)
        rows = n * math.prod(w.counts)
        return xp.ascontiguousarray(every).reshape(size, w.groups, rows, -1)

    def fold(self, rows: Any, windows: Windows, n: int) -> Any:
        """The way back: each element added where it was taken from, in row order."""
        w, size = windows, len(rows)
        by_element = rows.reshape(size, w.groups, n, *w.counts, math.prod(w.kernel), -1)
        by_element = by_element.transpose(5, 0, 2, 3, 4, 1, 6)  # (KH KW, G, N, OH, OW, R, CG)
        channels = w.groups * w.per_group
        by_element = by_element.reshape(math.prod(w.kernel), size, n, *w.counts, channels)
        total = self.xp.zeros((size, n, *w.padded_size, channels), rows.dtype)
        for place, element in zip(images.elements(total, w), by_element, strict=True):
            place += element
        return images.inside(total, w.pad, w.size)

    def max_pool(self, x: Any, windows: Windows, first: Any) -> tuple[Any, Any]:
        """The largest of each window, and which of its elements that is, from 0 in row order.

        first: int32 `(OH, OW)`, the first element of each window that is a pixel: it wins where
        nothing is greater.
        """
        xp = self.xp
        padded = images.padded(xp, x, windows.pad, windows.padded_size, -np.inf)
        y, *others = images.elements(padded, windows)
        chosen = first[:, :, None]
        for k, element in enumerate(others, start=1):
            chosen = xp.where(element > y, np.int32(k), chosen)
            y = xp.maximum(element, y)
        return y, xp.broadcast_to(chosen, y.shape)

    def max_unpool(self, dy: Any, windows: Windows, chosen: Any) -> Any:
        """The gradient of `max_pool`: that of each window to the chosen one of its elements."""
        total = self.xp.zeros((*dy.shape[:2], *windows.padded_size, dy.shape[-1]), dy.dtype)
        for k, element in enumerate(images.elements(total, windows)):
            element += dy * (chosen == k)
        return images.inside(total, windows.pad, windows.size)

    def take_chosen(self, x: Any, windows: Windows, chosen: Any) -> Any:
        """The gradient of `max_unpool`: of each window the chosen one of its elements."""
        first, *others = images.elements(
            images.padded(self.xp, x, windows.pad, windows.padded_size), windows
        )
        y = first
        for k, element in enumerate(others, start=1):
            y = self.xp.where(chosen == k, element, y)
        return y

    def sum_rows(self, x: Any, dtype: Any = None) -> Any:
        """`(G, P, C)` summed over P, in two stages: one would keep few threads busy."""
        g, p, c = x.shape
        cuts = cuts_of(p)
        partial = self.xp.sum(x.reshape(g, cuts, p // cuts, c), axis=2, dtype=dtype)
        return self.xp.sum(partial, axis=1, dtype=dtype)

    def gather(self, pictures: Any, places: Any) -> Any:
        """Images with some numbers, of `(S, C, H, W)` of any type, moved, as `(G, N, H, W, C)`.

        places: int32 `(G, N, 3)`, of each its number, and how far it is moved down and to the
        right; what comes in is 0.
        """
        xp = self.xp
        _, _, h, w = pictures.shape
        number, down, right = (places[:, :, i] for i in range(3))
        rows = xp.arange(h) - down[:, :, None]  # where each pixel comes from
        columns = xp.arange(w) - right[:, :, None]
        is_inside = ((rows > -1) & (rows < h))[..., None] & ((columns > -1) & (columns < w))[
            :, :, None
        ]
        rows = xp.minimum(xp.maximum(rows, 0), h - 1)[..., None]
        columns = xp.minimum(xp.maximum(columns, 0), w - 1)[:, :, None]
        found = images.channels_last(pictures)[number[:, :, None, None], rows, columns]
        return xp.where(is_inside[..., None], found, found.dtype.type(0))

    def sum_by_word(self, x: Any, words: Any, num_words: int) -> Any:
        """`(G, P, C)` to `(G, num_words, C)`: the sums over the rows of each word, in their order.

        words: `(G, P)`, int32, which word each row is of. Not even exact sums are asked for: the
        order is that of the host.
        """
        g, p, c = x.shape
        out, numbers = self.xp.zeros((g, num_words, c), x.dtype), self.xp.arange(g)
        for row in range(p):
            places = numbers, words[:, row]
            out[places] = out[places] + x[:, row]
        return out

    def products_of_rows(self, a: Any, b: Any) -> Any:
        """`(..., P, K)` and `(..., P, F)` to `(..., K, F)`, the sums over P cut into several."""
        *first, p, k = a.shape
        cuts, f = cuts_of(p), b.shape[-1]
        a, b = (x.reshape(-1, p // cuts, x.shape[-1]) for x in (a, b))
        partial = self.matmul(a.transpose(0, 2, 1), b)
        return self.sum_rows(partial.reshape(-1, cuts, k * f)).reshape(*first, k, f)

    def sum_of_units(self, x: Any, scale: float) -> tuple[Any, Any]:
        """The sum over G of `(G, P)` in whole numbers of 1 / `scale`, int64; and the largest
        magnitudes, `(G,)` float64.
        """
        xp = self.xp
        largest = xp.max(xp.abs(x), axis=1).astype(np.float64)
        with np.errstate(invalid="ignore"):  # what is not finite is told by the largest
            units = xp.rint(x.astype(np.float64) * scale).astype(np.int64)
        return xp.sum(units, axis=0), largest

    def from_units(self, units: Any, scale: float, out: Any) -> None:
        """Writes the numbers that `units` `(P,)`, int64, stand for to `out`, a float vector."""
        out[...] = units.astype(out.dtype) * out.dtype.type(1 / scale)

    def cross_entropy(
        self, x: Any, labels: Any, weights: Any, divisor: Any, loss: SoftmaxCrossEntropy
    ) -> tuple[Any, Any]:
        """The gradient of `loss` for logits `(G, N, K)`; and `(G, 2)` float64: the loss before it
        is divided by `divisor` `(1,)`, and how many rows have their largest logit at the label.
        """
        xp, arithmetic = self.xp, loss.arithmetic
        k = x.shape[2]
        sums = Sums(self, arithmetic)
        shifted = x - xp.max(x, axis=2, keepdims=True)
        exponentials = arithmetic.exp(shifted)
        log_p = shifted - arithmetic.log(sums.over(exponentials, 2))
        is_label = xp.equal(labels[:, :, None], xp.arange(k))
        losses = -xp.sum(xp.where(is_label, log_p, 0), axis=2)
        e = loss.smoothing
        if e:
            losses = (1 - e) * losses - e * (sums.over(log_p, 2)[:, :, 0] / k)
        of_rows = None if weights is None else weights[labels]
        if of_rows is not None:
            losses = losses * of_rows
        total = sums.over(losses.astype(np.float64), 1)[:, 0]
        correct = xp.sum(xp.equal(xp.argmax(x, axis=2), labels), axis=1)
        dx = arithmetic.exp(log_p)
        dx = xp.where(is_label, dx - dx.dtype.type(1 - e), dx)
        if e:
            dx = dx - dx.dtype.type(e / k)
        if of_rows is not None:
            dx = dx * of_rows.astype(dx.dtype)[:, :, None]
        dx = dx * (1 / divisor).astype(dx.dtype)
        return dx, xp.stack([total, correct.astype(np.float64)], axis=1)


class Sums:
    """Sums over one axis, which is not lost, as `Arithmetic.sum` has them."""

    def __init__(self, kernels: Kernels, arithmetic: Arithmetic) -> None:
        self.kernels, self.arithmetic = kernels, arithmetic

    def over(self, x: Any, axis: int) -> Any:
        terms = self.kernels.terms(x, x.shape[axis]) if self.arithmetic.rounds else x
        return self.kernels.xp.sum(terms, axis=axis, keepdims=True)


@lru_cache(maxsize=1024)
def cuts_of(num_terms: int, work: int = WORK) -> int:
    """Into how many equal parts a sum of so many terms is cut, each of at least `work` terms."""
    most = num_terms // work
    return next((cuts for cuts in range(most, 1, -1) if num_terms % cuts == 0), 1)
