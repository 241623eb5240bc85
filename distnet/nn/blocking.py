"""How long products are, and how they are cut: what BLAS and the caches like."""

from __future__ import annotations

import functools
import itertools

import numpy as np

from distnet.base.arrays import Array
from distnet.base.blas import terms_of_small_products
from distnet.nn import layout

SMALL_PRODUCT = 1_000_000  # multiplications up to which OpenBLAS works without packing copies
_PIECE_COLUMNS = 64, 48, 32
_LEAST_ROWS, _LEAST_PIECE = 16, SMALL_PRODUCT // 8  # multiplications that are worth a call
_SQUARE = 128  # elements a side: both ways to walk through it stay in the cache
_FEW = 64  # elements a side that are copied without squares
_LINE_BYTES = 64  # of the cache: elements that are nearer than this are read together


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
    """out = left @ right, as np.matmul, the fast way."""
    left, right, out = in_pieces(left, right, out)
    np.matmul(left, right, out=out)


def in_pieces(left: Array, right: Array, out: Array) -> tuple[Array, Array, Array]:
    """What np.matmul shall be called with for out = left @ right: these, or views of them.

    A large product in float32 is many small ones, of some rows of `left` and some columns of
    `right`, where BLAS multiplies these faster: without copies of its own, which cost most where
    there are few rows. Sums stay whole, and are no longer than BLAS adds up in one run, so that no
    bit depends on it.
    """
    (m, k), n = left.shape[-2:], right.shape[-1]
    if m * k * n <= SMALL_PRODUCT or k > terms_of_small_products():
        return left, right, out
    piece = _piece(m, k, n)
    if piece is None or not left.dtype == right.dtype == out.dtype == np.float32:
        return left, right, out
    if not right.strides[-1] == out.strides[-1] == out.itemsize:
        return left, right, out
    rows, columns = piece
    # All rows for some columns of `right` before the next ones, which so stay in the cache.
    left = left.reshape(*left.shape[:-2], 1, -1, rows, k)
    right = right.reshape(*right.shape[:-1], -1, 1, columns)  # (.., k, parts, 1, columns)
    out = out.reshape(*out.shape[:-2], m // rows, rows, -1, columns)
    return left, right.swapaxes(-4, -3).swapaxes(-3, -2), out.swapaxes(-4, -2).swapaxes(-3, -2)


@functools.lru_cache(maxsize=1024)
def _piece(m: int, k: int, n: int) -> tuple[int, int] | None:
    """Rows and columns of the small products that an (m, k) @ (k, n) is cut into, or None."""
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
