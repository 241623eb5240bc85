"""The tiles of a Winograd convolution: its transforms as products on views of memory.

Letters as in `winograd`. A transform of some tile rows acts along one axis first, from images to
scratch memory called `half`, then along the other. Each is a list of steps on views that are made
once. The docstrings give the memory order of what is read and written, outermost index first.
"""

from __future__ import annotations

from functools import partial
from typing import ClassVar

import numpy as np
from numpy.typing import DTypeLike

from distnet.base.arrays import Array, Shape, ceil_divide
from distnet.nn import layout
from distnet.nn.blocking import Step, equal_parts, in_pieces
from distnet.nn.conv.geometry import Geometry
from distnet.nn.conv.winograd_transforms import (
    EXACT_POINTS,
    POINTS,
    gather_matrix,
    transforms,
)
from distnet.nn.layout import view

_CHUNK = 16384  # columns of one product: short enough for BLAS to work without packing copies
_BLOCK_BYTES = 2 * 1024 * 1024  # products of one block of tile rows: long enough for few calls


def whole_product(left: Array, right: Array, destination: Array) -> Step:
    """One matrix product, or one for each of several matrices; long sums are not cut into runs.

    Of many channels the filters leave the cache: what `blocking.product` does there saves nothing.
    """
    return partial(np.matmul, *in_pieces(left, right, destination))


def chunks(width: int) -> tuple[int, int]:
    """`width` columns as (number of chunks, columns of a chunk), exactly."""
    count = equal_parts(width, _CHUNK)
    return count, width // count


class Tiling:
    """How the images of one convolution are cut into tiles, and what its transforms are.

    th, tw: rows and columns of tiles of the output; dth, dtw: of the input's gradient.
    padded_shape: the images with zeros up to the end of the last tiles, (N, C, m th + k - 1, ...).
    y_shape, dx_shape: the output and the input's gradient, (N, F, ...) and (N, C, ...), in whole
    tiles, so that they may stick out below and on the right.
    blocks: the tile rows that go through all steps together, in order.
    """

    exact: ClassVar[bool] = False  # with `EXACT_POINTS`, and 3 G in place of G
    pool: ClassVar[int] = 1  # the sides of y and dy are those of the convolution's output over this

    def __init__(self, geometry: Geometry, n: int, dtype: DTypeLike, m: int) -> None:
        g, k = geometry, geometry.kh
        self.m, self.k, self.r = m, k, m + k - 1
        self.nc, self.nf = n * g.c, n * g.f
        self.th, self.tw = ceil_divide(g.oh, m), ceil_divide(g.ow, m)
        self.dth, self.dtw = ceil_divide(g.h, m), ceil_divide(g.w, m)
        self.padded_shape: Shape = (n, g.c, m * self.th + k - 1, m * self.tw + k - 1)
        side = m // self.pool
        self.y_shape: Shape = (n, g.f, side * self.th, side * self.tw)
        self.dx_shape: Shape = (n, g.c, m * self.dth, m * self.dtw)
        self._make_matrices(np.dtype(dtype), g.pad[0])
        row_bytes = self.num_points(1) * max(self.nc, self.nf) * np.dtype(dtype).itemsize
        self.block_rows = max(1, min(self.th, _BLOCK_BYTES // row_bytes))
        starts = range(0, self.th, self.block_rows)
        self.blocks = [range(t, min(t + self.block_rows, self.th)) for t in starts]

    def _make_matrices(self, dtype: np.dtype, pad: int) -> None:
        points = (EXACT_POINTS if self.exact else POINTS)[self.r]
        bt, on_one_axis, at = transforms(self.m, self.k, points)
        if self.exact:
            on_one_axis = np.rint(24 * on_one_axis) / 8
        self.bt, self.at = bt.astype(dtype), at.astype(dtype)  # (r, r), (m, r)
        self.a = np.ascontiguousarray(self.at.T)  # (r, m)
        self.gg = np.kron(on_one_axis, on_one_axis).astype(dtype)  # (r r, k k): G on both axes
        gather, self._first_point = gather_matrix(self.m, self.k, pad, points)
        self._gather = gather.astype(dtype)  # (m, points of neighbouring tiles)

    def num_points(self, tile_rows: int) -> int:
        """Points of the tiles of so many rows of tiles, for one image and channel."""
        return self.r**2 * tile_rows * self.tw

    def has_whole_tiles(self, images: Array) -> bool:
        """Whether an array is the output, or its gradient, in whole tiles and in memory order."""
        return images.shape == self.y_shape and layout.has_whole_rows(images)

    # Sizes of scratch memory, in numbers.

    @property
    def half_size(self) -> int:
        """A block transformed along one axis."""
        m, r, tb = self.m, self.r, self.block_rows
        return tb * r * max((m * self.tw + self.k - 1) * self.nc, m * self.tw * self.nf)

    @property
    def z_size(self) -> int:
        """A row of tiles whose points are gathered along one axis."""
        return self.m * self._row_points * self.nc

    @property
    def _row_points(self) -> int:
        """Points along a row of z, with those before the first tile and behind the last."""
        reach = self.r * (self.dtw - 1) + self._first_point + self._gather.shape[1]
        return self._before + max(self.r * self.tw, reach)

    @property
    def _before(self) -> int:
        return max(0, -self._first_point)

    # The transforms.

    def input_steps(self, rows: range, padded: Array, half: Array, v: Array) -> list[Step]:
        """V = B^T d B: padded[m tu + i][column] -> half[tu][xi][column] -> v[xi][eta][tu][tv]."""
        m, r, nc, tw, tb = self.m, self.r, self.nc, self.tw, len(rows)
        row, e = (m * tw + self.k - 1) * nc, tb * tw * nc
        k, p = chunks(row)
        pixels = layout.native(padded)[m * rows.start :]
        return [
            whole_product(
                self.bt,
                view(pixels, (tb, k, r, p), (m * row, p, row, 1)),
                view(half, (tb, k, r, p), (r * row, p, row, 1)),
            ),
            whole_product(
                self.bt,
                view(half, (tb, r, tw, r, nc), (r * row, row, m * nc, nc, 1)),
                view(v, (tb, r, tw, r, nc), (tw * nc, r * e, nc, e, 1)),
            ),
        ]

    def output_steps(self, rows: range, products: Array, half: Array, y: Array) -> list[Step]:
        """Y = A^T M A: m[xi][eta][tu][tv] -> half[a][eta][tu][tv] -> y[m tu + a][m tv + b]."""
        m, r, nf, tw, tb = self.m, self.r, self.nf, self.tw, len(rows)
        y, e = layout.native(y), tb * tw * nf
        k, p = chunks(r * e)
        row = y.strides[0] // y.itemsize
        return [
            whole_product(
                self.at,
                view(products, (k, r, p), (p, r * e, 1)),
                view(half, (k, m, p), (p, r * e, 1)),
            ),
            whole_product(
                self.at,
                view(half, (m, tb, tw, r, nf), (r * e, tw * nf, nf, e, 1)),
                view(y[m * rows.start :], (m, tb, tw, m, nf), (row, m * row, m * nf, nf, 1)),
            ),
        ]

    def gradient_steps(self, rows: range, dy: Array, half: Array, products: Array) -> list[Step]:
        """dM = A dY A^T: dy[m tu + a][column] -> half[tu][xi][column] -> m[xi][eta][tu][tv]."""
        m, r, nf, tw, tb = self.m, self.r, self.nf, self.tw, len(rows)
        dy, e, width = layout.native(dy), tb * tw * nf, m * tw * nf
        k, p = chunks(width)
        row = dy.strides[0] // dy.itemsize
        return [
            whole_product(
                self.a,
                view(dy[m * rows.start :], (tb, k, m, p), (m * row, p, row, 1)),
                view(half, (tb, k, r, p), (r * width, p, width, 1)),
            ),
            whole_product(
                self.a,
                view(half, (tb, r, tw, m, nf), (r * width, width, m * nf, nf, 1)),
                view(products, (tb, r, tw, r, nf), (tw * nf, r * e, nf, e, 1)),
            ),
        ]

    def gather_steps(self, rows: range, dv: Array, z: Array, dx: Array) -> list[Step]:
        """dx = B dV B^T, added over tiles: dv[tu][xi][eta][tv] -> z[a][tv][eta] -> dx[m tu + a].

        For the tile rows of dx that need no points of tiles below `rows`, and need some of these.
        z: (a, points of a row, N C), of which `margins` have to be zero.
        """
        m, r, nc, tw, k = self.m, self.r, self.nc, self.tw, self._gather.shape[1]
        before, first = self._before, self._first_point
        pixels = layout.native(dx)
        z_row, dx_row, point = z.shape[1] * nc, pixels.shape[1] * nc, r * tw * nc
        steps: list[Step] = []
        for t in range(self._num_gathered(rows.start), self._num_gathered(rows.stop)):
            # Above the first and below the last tile row there are no points to gather.
            low = max(0, r * t + first)
            high = min(r * t + first + k, r * self.th)
            used = self._gather[:, low - r * t - first : high - r * t - first]
            steps += [
                whole_product(
                    used,
                    view(dv[low:], (r, tw, high - low, nc), (tw * nc, nc, point, 1)),
                    view(z[:, before:], (r, tw, m, nc), (nc, r * nc, z_row, 1)),
                ),
                whole_product(
                    self._gather,
                    view(z[:, before + first :], (m, self.dtw, k, nc), (z_row, r * nc, nc, 1)),
                    view(pixels[m * t :], (m, self.dtw, m, nc), (dx_row, m * nc, nc, 1)),
                ),
            ]
        return steps

    def margins(self, z: Array) -> list[Array]:
        """The points of z before the first tile and behind the last."""
        return [z[:, : self._before], z[:, self._before + self.r * self.tw :]]

    def _num_gathered(self, num_rows: int) -> int:
        """How many tile rows of dx can be gathered from the points of the first `num_rows`."""
        if num_rows == self.th:
            return self.dth
        reach = self._first_point + self._gather.shape[1]  # of tile row 0
        return min(self.dth, max(0, (self.r * num_rows - reach) // self.r + 1))
