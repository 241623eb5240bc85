"""Images of another size: the matrix that weighs the old pixels for each new one."""

from __future__ import annotations

import math

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
    return weights / np.array([[math.fsum(row)] for row in weights])  # of any order


def covering(old: int, new: int) -> Array:
    """A matrix whose weights are how much of each old pixel a new one covers.

    Lines keep their weight, and edges stay as sharp as the new pixels allow.
    """
    edges = np.arange(new + 1)[:, None] * old / new
    pixels = np.arange(old)
    cover = np.minimum(edges[1:], pixels + 1) - np.maximum(edges[:-1], pixels)
    return np.maximum(cover, 0) * new / old
