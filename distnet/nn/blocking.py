"""How long products are, and how they are cut: what BLAS and the caches like."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from functools import partial

import numpy as np

from distnet.base.arrays import Array
from distnet.base.blas import runs, terms_of_small_products
from distnet.nn import layout

Step = Callable[[], object]  # something to be done on views that are made once

SMALL_PRODUCT = 1_000_000  # multiplications up to which OpenBLAS works without packing copies
_PIECE_COLUMNS = 64, 48, 32
_MOST_SUMS = 1 << 18  # of several runs: they stay in the cache
_LEAST_ROWS, _LEAST_PIECE = 16, SMALL_PRODUCT // 8  # multiplications that are worth a call
_SQUARE = 128  # elements a side: both ways to walk through it stay in the cache
_FEW = 64  # elements a side that are copied without squares
_LINE_BYTES = 64  # of the cache: elements that are nearer than this are read together


def run(steps: list[Step]) -> None:
    """Does one after the other."""
    for step in steps:
        step()


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


def multiply(left: Array, right: Array, out: Array) -> None:
    """out = left @ right, as np.matmul, and faster where many small products are, see `in_pieces`.

    No bit depends on that: a sum of too many terms is made of runs in the way of BLAS. (But for the
    product of a matrix with its own transpose, for which np.matmul calls another function.)
    """
    product(left, right, out)()


def product(left: Array, right: Array, out: Array) -> Step:
    """What makes `multiply` of these arrays, as often as it is called.

    To be made again when `terms_of_small_products` has changed.
    """
    terms, k = terms_of_small_products(), left.shape[-1]
    is_long = 0 < terms < k and math.prod(out.shape[-2:]) <= _MOST_SUMS
    if is_long and _piece(left, right, out, terms) is not None:
        return partial(_multiply_in_runs, left, right, out, list(runs(k, terms)))
    return partial(np.matmul, *in_pieces(left, right, out))


def _multiply_in_runs(left: Array, right: Array, out: Array, slices: list[slice]) -> None:
    for i, run in enumerate(slices):
        total = np.empty_like(out) if i else out
        np.matmul(*in_pieces(left[..., run], right[..., run, :], total))
        if i:
            np.add(out, total, out=out)


def in_pieces(left: Array, right: Array, out: Array) -> tuple[Array, Array, Array]:
    """What np.matmul shall be called with for out = left @ right: these, or views of them.

    A large product in float32 is many small ones, of some rows of `left` and some columns of
    `right`, where BLAS multiplies these faster: without copies of its own, which cost most where
    there are few rows. A sum stays whole, and is no longer than BLAS adds up in one run.
    """
    k = left.shape[-1]
    piece = _piece(left, right, out, k) if k <= terms_of_small_products() else None
    if piece is None:
        return left, right, out
    rows, columns = piece
    # All rows for some columns of `right` before the next ones, which so stay in the cache.
    left = left.reshape(*left.shape[:-2], 1, -1, rows, k)
    right = right.reshape(*right.shape[:-1], -1, 1, columns)  # (.., k, parts, 1, columns)
    out = out.reshape(*out.shape[:-2], -1, rows, right.shape[-3], columns)
    return left, right.swapaxes(-4, -3).swapaxes(-3, -2), out.swapaxes(-4, -2).swapaxes(-3, -2)


def _piece(left: Array, right: Array, out: Array, k: int) -> tuple[int, int] | None:
    """Rows and columns of small products of k terms that make a large one, or None."""
    if not left.dtype == right.dtype == out.dtype == np.float32:
        return None
    if not right.strides[-1] == out.strides[-1] == out.itemsize:
        return None
    return _rows_and_columns(*out.shape[-2:], k)


@functools.lru_cache(maxsize=1024)
def _rows_and_columns(m: int, n: int, k: int) -> tuple[int, int] | None:
    """Rows and columns of a piece of an (m, k) @ (k, n); None: it stays whole."""
    if m * n * k <= SMALL_PRODUCT:
        return None
    for columns in _PIECE_COLUMNS:
        rows = m // equal_parts(m, SMALL_PRODUCT // (k * columns))
        is_worth_it = rows >= _LEAST_ROWS and rows * k * columns >= _LEAST_PIECE
        if n % columns == 0 and is_worth_it:
            return rows, columns
    return None


def add_product(i: int, left: Array, right: Array, total: Array, part: Array) -> None:
    """total += left @ right, or total = left @ right for the first of the parts, i = 0."""
    multiply(left, right, part if i else total)
    if i:
        np.add(total, part, out=total)


def copy_in_squares(source: Array, out: Array) -> None:
    """As np.copyto, for arrays of one shape and of different memory orders, such as transposed.

    Of a large array, what lies side by side in `out` lies far apart in `source`, often by a power
    of two, and then in the same few places of the cache. So each square is first copied as it lies
    to where it fits in, and from there in the other order.
    """
    if max(out.shape, default=0) <= _FEW or _step_along(out, source) <= _LINE_BYTES:
        np.copyto(out, source)
        return
    room = _square_like(source)
    for starts in itertools.product(*(range(0, length, _SQUARE) for length in out.shape)):
        square = tuple([slice(start, start + _SQUARE) for start in starts])
        part = source[square]
        between = room[tuple([slice(length) for length in part.shape])]
        np.copyto(between, part)
        np.copyto(out[square], between)


def _step_along(out: Array, source: Array) -> int:
    """How many bytes apart in `source` are those that lie side by side in `out`."""
    axis = min(range(out.ndim), key=lambda axis: (out.shape[axis] == 1, out.strides[axis]))
    return source.strides[axis]


def _square_like(array: Array) -> Array:
    """Room for a square, in the memory order of an array, with distances that are odd."""
    lengths = [min(_SQUARE, length) for length in array.shape]
    strides, step = [0] * array.ndim, 1
    for axis in sorted(range(array.ndim), key=lambda axis: array.strides[axis]):
        strides[axis], step = step, step * lengths[axis]
        if lengths[axis] == _SQUARE:
            step |= 1
    return layout.view(np.empty(step, array.dtype), tuple(lengths), tuple(strides))
