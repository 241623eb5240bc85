"""How much Winograd's convolution rounds, by the points at which its polynomials are evaluated.

python docs/measurements/winograd_points.py

Prints the largest errors of the output y and of the gradients dg and dx of single tiles, float32
against float64, relative to the largest element: means over sets of normally distributed tiles.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import DTypeLike

from distnet.base.arrays import Array
from distnet.nn.conv.winograd_transforms import transforms

POINTS = {
    "1, -1, 2, -2": (0, 1, -1, 2, -2),
    "1, -1, 1/2, -1/2": (0, 1, -1, 1 / 2, -1 / 2),
    "1, -1, 1/2, -2": (0, 1, -1, 1 / 2, -2),
    "1, -1, 1/3, -3": (0, 1, -1, 1 / 3, -3),
    "1, -1, 1/2, 2": (0, 1, -1, 1 / 2, 2),
}
SIZES = {"F(4x4, 3x3)": (4, 3), "F(2x2, 5x5)": (2, 5)}
NUM_SETS, TILES, CHANNELS = 3, 64, 32  # as many channels out as in

Tiles = tuple[Array, Array, Array]  # x (P, C, r, r), g (F, C, k, k), dy (P, F, m, m)


def convolve(m: int, k: int, points: Sequence[float], tiles: Tiles, dtype: DTypeLike) -> Tiles:
    """y (P, F, m, m), dg (F, C, k, k) and dx (P, C, r, r) of P tiles, all products in `dtype`."""
    bt, gt, at = (matrix.astype(dtype) for matrix in transforms(m, k, points))
    x, g, dy = (array.astype(dtype) for array in tiles)
    v = _swapped(bt @ x @ bt.T)  # (r, r, P, C)
    u = _swapped(gt @ g @ gt.T)  # (r, r, F, C)
    dm = _swapped(at.T @ dy @ at)  # (r, r, P, F)
    y = at @ _swapped(v @ u.swapaxes(2, 3)) @ at.T
    dg = gt.T @ _swapped(dm.swapaxes(2, 3) @ v) @ gt
    dx = bt.T @ _swapped(dm @ u) @ bt
    return y, dg, dx


def errors(m: int, k: int, points: Sequence[float], num_tiles: int = TILES) -> Array:
    """Of (y, dg, dx): the largest error over the largest element, mean over the sets."""
    found = []
    for seed in range(NUM_SETS):
        tiles = _normal_tiles(np.random.default_rng(seed), m, k, num_tiles)
        rounded = convolve(m, k, points, tiles, np.float32)
        exact = convolve(m, k, points, tiles, np.float64)
        pairs = zip(rounded, exact, strict=True)
        found.append([np.abs(a - b).max() / np.abs(b).max() for a, b in pairs])
    return np.mean(found, axis=0)


def _normal_tiles(rng: np.random.Generator, m: int, k: int, num_tiles: int) -> Tiles:
    r, c = m + k - 1, CHANNELS
    shapes = (num_tiles, c, r, r), (c, c, k, k), (num_tiles, c, m, m)
    x, g, dy = (rng.standard_normal(shape) for shape in shapes)
    return x, g, dy


def _swapped(a: Array) -> Array:
    """From a matrix (r, r) for each tile and channel to one (tiles, channels) for each point."""
    return a.transpose(2, 3, 0, 1)


def main() -> None:
    print(f"| points, with 0 and infinity | {': y, dg, dx | '.join(SIZES)}: y, dg, dx |")
    print("|---|---|---|")
    for name, points in POINTS.items():
        cells = [", ".join(f"{e:.1e}" for e in errors(m, k, points)) for m, k in SIZES.values()]
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
