"""Images of another size, for networks that need larger ones than a data set has.

A pixel of the result is the mean of the pixels that it covers, weighted by a triangle that is two
pixels wide in the coarser of both grids: bilinear interpolation where images grow, and without
moiré where they shrink (what Pillow calls BILINEAR). Called by the training loop, on the fly.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from distnet.base.arrays import Array

_PARTS = 256  # weights are whole multiples of 1/256


def resized(images: Array, height: int, width: int) -> Array:
    """Images `(N, C, H, W)` as `(N, C, height, width)` of the same type, bytes or floats.

    Bytes are rounded to the nearest. They are the same on all machines: in float32 every sum is a
    whole number of at most 255 * 256 * 256 < 2^24, which is exact in any order.
    """
    rows, columns = _weights(images.shape[2], height), _weights(images.shape[3], width)
    if images.dtype != np.uint8:
        rows, columns = (w.astype(images.dtype) / _PARTS for w in (rows, columns))
        return rows @ (images @ columns.T)
    sums = rows @ (images.astype(np.float32) @ columns.T)
    sums /= _PARTS * _PARTS
    return np.rint(sums, out=sums).astype(np.uint8)


@cache
def _weights(old: int, new: int) -> Array:
    """How much of each old pixel is in each new one: `(new, old)`, rows of whole numbers / 256."""
    centres = (np.arange(new)[:, None] + 0.5) * old / new
    reach = max(old / new, 1)
    weights = np.maximum(0, 1 - np.abs(np.arange(old) + 0.5 - centres) / reach)
    weights *= _PARTS / weights.sum(axis=1, keepdims=True)
    whole = np.floor(weights)
    # What is left over goes to those that lost most, so that the sum is 256 exactly.
    missing = (_PARTS - whole.sum(axis=1)).astype(int)
    order = np.argsort(whole - weights, axis=1, kind="stable")
    for row, places, number in zip(whole, order, missing, strict=True):
        row[places[:number]] += 1
    return whole.astype(np.float32)
