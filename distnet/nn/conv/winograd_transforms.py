"""The constant matrices of Winograd's minimal filtering, F(m x m, k x k), along one axis."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from distnet.base.arrays import Array

# By r: where polynomials are evaluated, besides at infinity. With 1/2 and -2 the largest errors are
# half of those with 2 and -2 (Lavin & Gray), see docs/fast-convolution.md. Point 1 comes second.
POINTS = {4: (0, 1, -1), 6: (0, 1, -1, 1 / 2, -2)}
# The same where nothing is rounded: of G only thirds are not whole in powers of two.
EXACT_POINTS = {4: (0, 1, -1), 6: (0, 1, -1, 2, -2)}


def transforms(m: int, k: int, points: Sequence[float] | None = None) -> tuple[Array, Array, Array]:
    """(B^T, G, A^T) of F(m x m, k x k), r = m + k - 1: shapes (r, r), (r, k), (m, r).

    By Toom and Cook: G and A^T evaluate polynomials with k and m coefficients at r - 1 points and
    at infinity (the last coefficient), B^T is the transpose of Lagrange's interpolation through
    them, whose denominators are moved to G. points: r - 1 different ones; None: those that round
    least.
    """
    points = points or POINTS[m + k - 1]
    r = len(points) + 1
    bt, g, at = np.zeros((r, r)), np.zeros((r, k)), np.zeros((m, r))
    for i, point in enumerate(points):
        others = np.delete(points, i)
        bt[i, :-1] = np.poly(others)[::-1]
        g[i] = point ** np.arange(k) / np.prod(point - others)
        at[:, i] = point ** np.arange(m)
    bt[-1] = np.poly(points)[::-1]
    g[-1, -1] = at[-1, -1] = 1
    return bt, g, at


def gather_matrix(
    m: int, k: int, pad: int, points: Sequence[float] | None = None
) -> tuple[Array, int]:
    """The adjoint of the input transform along one axis, as a product with neighbouring tiles.

    Input pixel m t + j (padding not counted) lies in up to ceil(r / m) tiles. D (m, K) collects its
    gradient from K consecutive points that begin `first` points after point 0 of tile t:
    d[m t + j] = sum_i D[j, i] point[r t + first + i]. Returns (D, first).
    """
    bt, _, _ = transforms(m, k, points)
    r = len(bt)
    low = -((r - 1) // m)  # pixels lie in tiles t + low to t + high; padding moves them up
    tiles = range(low, (m - 1 + pad) // m + 1)
    matrix = np.zeros((m, len(tiles) * r))
    for tile in tiles:
        for j in range(m):
            i = j + pad - m * tile  # which of that tile's r input pixels this one is
            if 0 <= i < r:
                matrix[j, (tile - low) * r : (tile - low + 1) * r] = bt[:, i]
    used = np.flatnonzero(matrix.any(axis=0))
    return matrix[:, used[0] : used[-1] + 1], int(used[0]) + low * r
