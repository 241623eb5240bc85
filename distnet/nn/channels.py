"""Sums for each channel, over all pixels of all images of a micro-batch."""

from __future__ import annotations

import numpy as np

from distnet.base.arithmetic import Arithmetic
from distnet.base.arrays import Array
from distnet.nn import layout

# BLAS and einsum take a fraction of the time of np.add.reduce. They add up in the type of the
# numbers, so they do that for one row of pixels, which is short; rows are added up in float64.


def sums(x: Array, arithmetic: Arithmetic, scratch: Array) -> Array:
    """The sums `(C,)`, float64, over `(N, C, H, W)` or `(N, C)`. `scratch` is an array like `x`."""
    if arithmetic.rounds:
        total: Array = arithmetic.sum(x, _all_but_channels(x), dtype=np.float64, scratch=scratch)
        return total
    return _rows_summed(_rows(x))


def products(x: Array, y: Array, arithmetic: Arithmetic, scratch: Array) -> Array:
    """The sums `(C,)`, float64, of x y."""
    if x.ndim == 2 or arithmetic.rounds:
        np.multiply(x, y, out=scratch)
        return sums(scratch, arithmetic, scratch)
    # The innermost loop is over the N C numbers of a pixel.
    row = layout.native(scratch)[:, 0]  # (H, N, C)
    np.einsum("hwnc,hwnc->hnc", layout.native(x), layout.native(y), out=row)
    return _rows_summed(row)


def _rows(x: Array) -> Array:
    """`(H, W N, C)` of images, `(1, N, C)` of vectors."""
    if x.ndim == 2:
        return x[np.newaxis]
    n, c, h, w = x.shape
    return layout.native(x).reshape(h, w * n, c)


def _rows_summed(rows: Array) -> Array:
    """`(H, K, C)` to `(C,)`."""
    ones = np.ones(rows.shape[1], rows.dtype)
    return np.add.reduce(ones @ rows, axis=0, dtype=np.float64)


def _all_but_channels(x: Array) -> tuple[int, ...]:
    return (0, 2, 3)[: x.ndim - 1]
