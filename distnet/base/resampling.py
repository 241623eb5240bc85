"""Images of another size: the matrix that weighs the old pixels for each new one."""

from __future__ import annotations

import numpy as np

from distnet.base.arrays import Array


def scaling(old: int, new: int) -> Array:
    """The matrix `(new, old)` whose rows are the weights of each new pixel, in float64.

    A new pixel is the mean of what it covers, weighted by a triangle that is two pixels wide in the
    coarser grid: bilinear interpolation where images grow, and without moiré where they shrink, as
    Pillow's BILINEAR and PyTorch's `antialias` have it.
    """
    centres = (np.arange(new)[:, None] + 0.5) * old / new
    weights = np.maximum(0, 1 - np.abs(np.arange(old) + 0.5 - centres) / max(old / new, 1))
    return weights / weights.sum(axis=1, keepdims=True)
