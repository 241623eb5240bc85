"""How long products are, and how they are cut: what BLAS and the caches like."""

from __future__ import annotations

import itertools

import numpy as np

from distnet.base.arrays import Array

SMALL_PRODUCT = 1_000_000  # multiplications up to which OpenBLAS works without packing copies
_SQUARE = 64  # elements a side: both ways to walk through it stay in the cache


def equal_parts(length: int, longest: int) -> int:
    """Into how many equal parts to cut `length`, as few as leave at most `longest` in each.

    Parts are equal, so that they are one array of several matrices: of a prime length each is 1.
    """
    parts = -(-length // max(1, longest))
    while length % parts:
        parts += 1
    return parts


def repeated(vector: Array | None, count: int, out: Array | None) -> Array | None:
    """A vector `count` times in a row, in `out` if that is there; None if there is no vector.

    To add a bias to long runs of pixels takes a fraction of the time that it takes for each pixel.
    """
    if vector is None:
        return None
    if out is None:
        out = np.empty(count * vector.size, vector.dtype)
    np.copyto(out.reshape(count, -1), vector)
    return out


def copy_in_squares(source: Array, out: Array) -> None:
    """As np.copyto, for arrays of one shape and of different memory orders, such as transposed."""
    if max(out.shape, default=0) <= _SQUARE:
        np.copyto(out, source)
        return
    for starts in itertools.product(*(range(0, length, _SQUARE) for length in out.shape)):
        square = tuple(slice(start, start + _SQUARE) for start in starts)
        np.copyto(out[square], source[square])
