"""Where the elements of an image array lie in memory: the one place that decides it.

Every array of images has the logical shape `(N, C, H, W)`, as in the book. Its memory order is
`[h][w][n][c]`: rows and columns outside, batch and channels inside. A NumPy view reconciles both,
so layers that treat all elements alike need not know. What the order buys: a spatial shift is a
pointer offset, and the `(N, C)` block of one pixel is an operand that BLAS multiplies in place.
Vectors of features, `(N, K)`, are stored as they are written.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import DTypeLike

from distnet.base.arrays import Array, Shape


def empty(shape: Shape, dtype: DTypeLike) -> Array:
    """An uninitialised array of logical shape `(N, C, H, W)` or `(N, K)`."""
    return shaped(np.empty(math.prod(shape), dtype), shape)


def shaped(flat: Array, shape: Shape) -> Array:
    """The view of a flat array as one of logical shape `(N, C, H, W)` or `(N, K)`."""
    if len(shape) != 4:
        return flat.reshape(shape)
    n, c, h, w = shape
    return logical(flat.reshape(h, w, n, c))


def zeros(shape: Shape, dtype: DTypeLike) -> Array:
    """Like `empty`, filled with zeros."""
    x = empty(shape, dtype)
    x[...] = 0
    return x


def has_whole_rows(x: Array) -> bool:
    """Whether each row of pixels is one run of memory in the engine's order; of vectors, all."""
    if x.ndim != 4:
        return x.flags.c_contiguous
    n, c, _, _ = x.shape
    return native(x).strides[1:] == (n * c * x.itemsize, c * x.itemsize, x.itemsize)


def native(x: Array) -> Array:
    """The `(H, W, N, C)` view of images `(N, C, H, W)`; contiguous if the engine allocated them."""
    return x.transpose(2, 3, 0, 1)


def logical(x: Array) -> Array:
    """The `(N, C, H, W)` view of an array that is stored as `(H, W, N, C)`."""
    return x.transpose(2, 3, 0, 1)


def view(first: Array, shape: Shape, strides: Shape) -> Array:
    """A view that starts at the first element of an array, strides in elements."""
    return as_strided(first, shape, tuple(s * first.itemsize for s in strides))
