"""Parameters in fewer bytes in a file: read again, they are numbers of the network's own precision.

What a network computes with stays float32 (or float64): NumPy has no fast products of halves.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from distnet.base.arrays import Array, Shape
from distnet.parallel.sums.half import BFloat16

PARAMS = "params."
BFLOAT16, BITS = "bfloat16", "bits"


def _as_it_is(array: Array) -> Array:
    return array


def _float16(array: Array) -> Array:
    """Rounded to 11 significant bits; raises ValueError for numbers that are too large for it."""
    largest, limit = np.abs(array).max(initial=0), np.finfo(np.float16).max
    if largest > limit:
        raise ValueError(
            f"found numbers up to {largest:.3g}, expected at most {limit:.0f}; take bfloat16"
        )
    return array.astype(np.float16)


def _bfloat16(array: Array) -> Array:
    """Rounded to the upper half of float32, with 8 significant bits: its bits, uint16."""
    values = np.ascontiguousarray(array, np.float32).ravel()
    patterns = np.empty(values.size, np.uint16)
    BFloat16.pack(values, patterns)
    return patterns.reshape(array.shape)


def _int8(array: Array) -> Array:
    """What is whole and fits into a byte, without loss; anything else as it is."""
    bytes_ = np.clip(array, -128, 127).astype(np.int8)
    return bytes_ if np.array_equal(bytes_, array) else array


def _bits(array: Array) -> Array:
    """What is +1 or -1 everywhere, eight to a byte, in a vector; anything else as it is."""
    if array.size == 0 or not np.array_equal(np.abs(array), np.ones_like(array)):
        return array
    return np.packbits(array > 0)


STORAGES: dict[str, Callable[[Array], Array]] = {
    "full": _as_it_is,
    "float16": _float16,
    BFLOAT16: _bfloat16,
    "int8": _int8,
    BITS: _bits,
}


def narrowed(state: dict[str, Array], storage: str) -> dict[str, Array]:
    """The arrays of a model file with its parameters stored as one of STORAGES says.

    Raises ValueError for an unknown storage, and for numbers that do not fit.
    """
    if storage not in STORAGES:
        raise ValueError(f"storage: found {storage!r:.40}, expected one of {', '.join(STORAGES)}")
    narrow = dict(state)
    for name, array in state.items():
        if name.startswith(PARAMS):
            try:
                narrow[name] = STORAGES[storage](array)
            except ValueError as error:
                raise ValueError(f"{name.removeprefix(PARAMS)}: {error}") from None
    return narrow


def widened(
    state: dict[str, Array], storage: str, shapes: Mapping[str, Sequence[int]]
) -> dict[str, Array]:
    """The arrays as numbers again. shapes: of those that were packed as bits."""
    wide = dict(state)  # NumPy knows the other types
    for name, array in state.items():
        if storage == BFLOAT16 and array.dtype == np.uint16:
            wide[name] = _from_bfloat16(array)
        elif storage == BITS and name in shapes:
            wide[name] = _from_bits(array, tuple(shapes[name]))
    return wide


def _from_bits(packed: Array, shape: Shape) -> Array:
    bits = np.unpackbits(packed, count=math.prod(shape))
    return np.where(bits, np.float32(1), np.float32(-1)).reshape(shape)


def _from_bfloat16(patterns: Array) -> Array:
    values = np.empty(patterns.size, np.float32)
    BFloat16.unpack(patterns.ravel(), values)
    return values.reshape(patterns.shape)
