"""Winograd's convolution whose output is max-pooled while it is in the cache.

An output tile of m x m pixels holds (m/2) x (m/2) windows of 2 x 2. With the rows of A^T sorted by
phase, even pixels first, a block of tiles comes out as

    y[column phase][b/2][row phase][a/2][tile][n f]

so that the left and the right pixels of all windows are two runs of memory, and so are then the
upper and the lower maxima: the pooling of `pooling.MaxPool2d`, on whole slabs. Only the pooled
quarter of the output is written to the image; the gradient comes back the same way.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import DTypeLike

from distnet.base.arrays import Array
from distnet.nn import layout
from distnet.nn.blocking import Step
from distnet.nn.conv.geometry import Geometry
from distnet.nn.conv.pooling import give_to_larger, take_larger
from distnet.nn.conv.winograd_tiles import Tiling, chunks, whole_product
from distnet.nn.layout import view


@dataclass
class _Slabs:
    """One block of tiles in phase order, as views; h = m / 2, e = tiles * N * F numbers.

    left, right: y by column phase, flat (2 h h e). columns, rows: the larger of two, by the next
    phase: (h, 2, h e) and (h, h e). In backward, the gradients of all these.
    """

    left: Array
    right: Array
    columns: Array
    rows: Array
    right_wins: Array
    lower_wins: Array
    images: Array  # rows, as they lie in the pooled output, or in its gradient

    def pool(self) -> None:
        """From y to the pooled output."""
        take_larger(self.left, self.right, self.columns.reshape(-1), self.right_wins)
        pairs = zip(self.columns, self.rows, self.lower_wins, strict=True)
        for (upper, lower), winner, lower_wins in pairs:
            take_larger(upper, lower, winner, lower_wins)
        np.copyto(self.images, self.rows.reshape(self.images.shape))

    def unpool(self) -> None:
        """From the gradient of the pooled output to that of y."""
        np.copyto(self.rows.reshape(self.images.shape), self.images)
        pairs = zip(self.columns, self.rows, self.lower_wins, strict=True)
        for (upper, lower), winner, lower_wins in pairs:
            give_to_larger(winner, lower_wins, upper, lower)
        give_to_larger(self.columns.reshape(-1), self.right_wins, self.left, self.right)


class PooledTiling(Tiling):
    """Tiles of the convolution's output, of which y and dy hold the maxima of 2 x 2 pixels."""

    pool = 2

    def __init__(self, geometry: Geometry, n: int, dtype: DTypeLike, m: int) -> None:
        super().__init__(geometry, n, dtype, m)
        phases = [*range(0, m, 2), *range(1, m, 2)]
        self.at = np.ascontiguousarray(self.at[phases])
        self.a = np.ascontiguousarray(self.at.T)
        num_columns = self.th * self.tw * self.nf * m * m // 2
        self.right_wins = np.empty(num_columns, bool)
        self.lower_wins = np.empty(num_columns // 2, bool)

    def output_steps(self, rows: range, products: Array, half: Array, y: Array) -> list[Step]:
        """Y = A^T M A: m[xi][eta][tiles] -> [a][eta][tiles] -> y[b][a][tiles], over m's memory."""
        m, r = self.m, self.r
        e = len(rows) * self.tw * self.nf
        k, p = chunks(r * e)
        kt, pt = chunks(e)
        return [
            whole_product(
                self.at,
                view(products, (k, r, p), (p, r * e, 1)),
                view(half, (k, m, p), (p, r * e, 1)),
            ),
            whole_product(
                self.at,
                view(half, (m, kt, r, pt), (r * e, pt, e, 1)),
                view(products, (m, kt, m, pt), (e, pt, m * e, 1)),
            ),
            self._slabs(rows, products, y).pool,
        ]

    def gradient_steps(self, rows: range, dy: Array, half: Array, products: Array) -> list[Step]:
        """dM = A dY A^T: y[b][a][tiles] -> [eta][a][tiles] -> m[xi][eta][tiles]."""
        m, r = self.m, self.r
        e = len(rows) * self.tw * self.nf
        k, p = chunks(m * e)
        kt, pt = chunks(e)
        return [
            self._slabs(rows, products, dy).unpool,
            whole_product(
                self.a,
                view(products, (k, m, p), (p, m * e, 1)),
                view(half, (k, r, p), (p, m * e, 1)),
            ),
            whole_product(
                self.a,
                view(half, (r, kt, m, pt), (m * e, pt, e, 1)),
                view(products, (r, kt, r, pt), (e, pt, r * e, 1)),
            ),
        ]

    def _slabs(self, rows: range, products: Array, images: Array) -> _Slabs:
        """The slabs of a block, one behind the other in the memory of its products."""
        h, e = self.m // 2, len(rows) * self.tw * self.nf
        size, start = 2 * h * h * e, 2 * h * h * rows.start * self.tw * self.nf
        return _Slabs(
            left=products[:size],
            right=products[size : 2 * size],
            columns=products[2 * size : 3 * size].reshape(h, 2, h * e),
            rows=products[3 * size : 3 * size + size // 2].reshape(h, h * e),
            right_wins=self.right_wins[start : start + size],
            lower_wins=self.lower_wins[start // 2 : (start + size) // 2].reshape(h, h * e),
            images=self._by_phase(images, rows),
        )

    def _by_phase(self, images: Array, rows: range) -> Array:
        """A block of pooled images as (b/2, a/2, tile row, tile, n f): the order of `rows`."""
        h, nf = self.m // 2, self.nf
        pixels = layout.native(images)
        row = pixels.strides[0] // pixels.itemsize
        shape, strides = (h, h, len(rows), self.tw, nf), (nf, row, h * row, h * nf, 1)
        return view(pixels[h * rows.start :], shape, strides)
