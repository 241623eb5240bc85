"""Convolution with small square kernels and stride 1 by Winograd's minimal filtering.

Lavin & Gray, "Fast algorithms for convolutional neural networks" (arXiv:1509.09308), section 4:
with a k x k kernel an m x m tile of the output needs r x r input pixels, r = m + k - 1, and

    Y = A^T [ (G g G^T) * (B^T d B) ] A          summed over the input channels,

with r * r multiplications in place of k k m m: 36 in place of 144 for a 3 x 3 kernel and m = 4, 16
in place of 36 for m = 2; 36 in place of 100 for a 5 x 5 kernel and m = 2. For each of the r * r
points the product over channels is a matrix product, V (tiles x C) @ U (C x F). In the engine's
memory order each transform is itself a product of a tiny matrix with whole rows: first along the
rows of pixels, then along the columns, with views instead of copies. The derivation with all shapes
is in docs/fast-convolution.md.

Letters: N images, C channels in, F filters, tiles (tu, tv), points (xi, eta), pixels of an output
tile (a, b); nc and nf stand for a contiguous run of N * C or N * F numbers.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import DTypeLike

from distnet.base.arrays import Array, Shape, ceil_divide
from distnet.nn import layout
from distnet.nn.blocking import equal_parts
from distnet.nn.conv.geometry import Geometry
from distnet.nn.layout import view
from distnet.nn.memory import Memory

# By r: where polynomials are evaluated, besides at infinity. With 1/2 and -2 the largest errors are
# half of those with 2 and -2 (Lavin & Gray), see docs/fast-convolution.md. Point 1 comes second.
_POINTS = {4: (0, 1, -1), 6: (0, 1, -1, 1 / 2, -2)}

_CHUNK = 16384  # columns of one product: short enough for BLAS to work without packing copies
_BLOCK_BYTES = 2 * 1024 * 1024  # products of one block of tile rows: long enough for few calls


def supports(m: int, g: Geometry) -> bool:
    """Whether there is an F(m x m, k x k) for the geometry: (m, k) is (2, 3), (4, 3) or (2, 5)."""
    return g.kh == g.kw > 1 and g.stride == 1 and m + g.kh - 1 in _POINTS


def transforms(m: int, k: int, points: Sequence[float] | None = None) -> tuple[Array, Array, Array]:
    """(B^T, G, A^T) of F(m x m, k x k), r = m + k - 1: shapes (r, r), (r, k), (m, r).

    By Toom and Cook: G and A^T evaluate polynomials with k and m coefficients at r - 1 points and
    at infinity (the last coefficient), B^T is the transpose of Lagrange's interpolation through
    them, whose denominators are moved to G. points: r - 1 different ones; None: those that round
    least.
    """
    points = points or _POINTS[m + k - 1]
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


def gather_matrix(m: int, k: int, pad: int) -> tuple[Array, int]:
    """The adjoint of the input transform along one axis, as a product with neighbouring tiles.

    Input pixel m t + j (padding not counted) lies in up to ceil(r / m) tiles. D (m, K) collects its
    gradient from K consecutive points that begin `first` points after point 0 of tile t:
    d[m t + j] = sum_i D[j, i] point[r t + first + i]. Returns (D, first).
    """
    bt, _, _ = transforms(m, k)
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


Product = tuple[Array, Array, Array]  # left, right, destination of one np.matmul


def multiply(products: list[Product]) -> None:
    for left, right, destination in products:
        np.matmul(left, right, destination)


def chunks(width: int) -> tuple[int, int]:
    """`width` columns as (number of chunks, columns of a chunk), exactly."""
    count = equal_parts(width, _CHUNK)
    return count, width // count


def _flat(filters: Array) -> Array:
    """Filters (k, k, C, F) or their points (r * r, C, F) as one row for each pixel or point."""
    return filters.reshape(-1, filters.shape[-2] * filters.shape[-1])


@dataclass
class ForwardBlock:
    """Some tile rows of a forward pass: what is multiplied, in order, on views made once."""

    first: int  # tile row
    m_bias: Array  # (tile rows, tiles * N * F): point (1, 1) of m, which reaches all pixels alike
    input_to_m: list[Product]
    m_to_output: list[Product]


@dataclass
class BackwardBlock:
    """The same of a backward pass. P = tile rows * tiles * N."""

    first: int  # tile row
    v: Array  # (r*r, P, C): the transformed input
    m: Array  # (r*r, P, F): the transformed output gradient
    m_bias: Array  # (P, F): point (1, 1) of m
    input_to_v: list[Product]  # none if v is that of the forward pass
    dy_to_m: list[Product]
    m_to_dv: list[Product]
    dv_to_dx: list[Product]  # of the rows of dx for which all points are there with this block


class WinogradConvolution:
    """Forward and backward of one convolution for one batch size, F(m x m, k x k)."""

    pool = 1  # y and dy are images whose sides are those of the convolution's output, over `pool`

    def __init__(
        self, geometry: Geometry, n: int, dtype: DTypeLike, memory: Memory, m: int = 4
    ) -> None:
        g = self.geometry = geometry
        self.n, self.dtype, self.memory = n, np.dtype(dtype), memory
        self.m, self.k, self.r = m, g.kh, m + g.kh - 1
        self.output_shape: Shape = (n, g.f, g.oh // self.pool, g.ow // self.pool)
        self.nc, self.nf = n * g.c, n * g.f
        self.th, self.tw = ceil_divide(g.oh, m), ceil_divide(g.ow, m)  # tiles of the output
        self.dth, self.dtw = ceil_divide(g.h, m), ceil_divide(g.w, m)  # tiles of the input gradient
        side = m // self.pool  # of a tile of y
        self.whole_shape = (n, g.f, side * self.th, side * self.tw)  # y and dy with whole tiles
        self._make_transforms()
        self.padded = layout.zeros(
            (n, g.c, m * self.th + self.k - 1, m * self.tw + self.k - 1), self.dtype
        )
        self.inbox = g.interior(self.padded)
        self.v: Array | None = None  # of the last forward pass, if that was to be kept
        self.u = memory.constant("u", (self.r**2, g.c, g.f), self.dtype)
        self.ut = memory.constant("ut", (self.r**2, g.f, g.c), self.dtype)
        row_bytes = self.r**2 * self.tw * max(self.nc, self.nf) * self.dtype.itemsize
        self.block_rows = max(1, min(self.th, _BLOCK_BYTES // row_bytes))
        self.bias_row = np.empty(self.tw * self.nf, self.dtype)  # for each tile of a row
        self.ones = np.ones((1, self.block_rows * self.tw * n), self.dtype)
        self._bound: list[tuple[Array | None, ...]] = [(), ()]  # what the views point into

    def _make_transforms(self) -> None:
        bt, on_one_axis, at = transforms(self.m, self.k)
        self.bt, self.at = bt.astype(self.dtype), at.astype(self.dtype)
        self.a = np.ascontiguousarray(self.at.T)
        self.gg = np.kron(on_one_axis, on_one_axis).astype(self.dtype)  # (r r, k k): both axes
        gather, self.first_point = gather_matrix(self.m, self.k, self.geometry.pad)
        self.gather = gather.astype(self.dtype)

    def load(self, weight: Array, bias: Array | None) -> None:
        """U = G g G^T and its transpose from the weight (F, C, k, k); the bias (F,) for every tile.

        BLAS wants both as they are read. To transform twice costs less than to transpose U.
        """
        k, c, f = self.k, self.geometry.c, self.geometry.f
        transposed, filters = self.memory.scratch.take(weight.size, weight.size, dtype=self.dtype)
        transposed, filters = transposed.reshape(k, k, f, c), filters.reshape(k, k, c, f)
        np.copyto(transposed, weight.transpose(2, 3, 0, 1))
        np.matmul(self.gg, _flat(transposed), out=_flat(self.ut))
        np.copyto(filters, transposed.swapaxes(2, 3))
        np.matmul(self.gg, _flat(filters), out=_flat(self.u))
        self.has_bias = bias is not None
        if bias is not None:
            np.copyto(self.bias_row.reshape(-1, f), bias)

    def forward(self, x: Array, out: Array, keep: bool) -> None:
        """From `x` (N, C, H, W) to `out` (N, F, OH, OW).

        `keep`: V, larger than x, stays for the backward pass, which else computes it again.
        """
        if x is not self.inbox:
            np.copyto(self.inbox, x)
        self._bind_output(out, keep)
        for block in self.forward_blocks:
            multiply(block.input_to_m)
            if self.has_bias:
                np.add(block.m_bias, self.bias_row, out=block.m_bias)
            self._to_output(block)
        if self.y is not out:
            np.copyto(out, self.y[:, :, : out.shape[2], : out.shape[3]])

    def backward(
        self, dy: Array, dweight: Array, dbias: Array | None, need_dx: bool
    ) -> Array | None:
        """The gradients of the last forward pass; returns that of the input, (N, C, H, W)."""
        self._bind_gradient(dy, need_dx)
        if self.dy is not dy:
            h, w = dy.shape[2:]
            np.copyto(self.dy[:, :, :h, :w], dy)
            self.dy[:, :, h:] = 0
            self.dy[:, :, :, w:] = 0
        for margin in self.margins:
            margin[...] = 0
        for i, block in enumerate(self.backward_blocks):
            multiply(block.input_to_v)
            self._from_gradient(block)
            self._add_product(i, block.v.transpose(0, 2, 1), block.m, self.du, self.du_part)
            if dbias is not None:
                ones = self.ones[:, : len(block.m_bias)]
                self._add_product(i, ones, block.m_bias, self.db, self.db_part)
            multiply(block.m_to_dv)
            multiply(block.dv_to_dx)
        if dbias is not None:
            np.copyto(dbias, self.db[0])
        self._filter_gradient(dweight)
        return self.dx

    @staticmethod
    def _add_product(i: int, left: Array, right: Array, total: Array, part: Array) -> None:
        """total += left @ right, or total = left @ right for the first of the parts, i = 0."""
        np.matmul(left, right, out=part if i else total)
        if i:
            np.add(total, part, out=total)

    def _to_output(self, block: ForwardBlock) -> None:
        multiply(block.m_to_output)

    def _from_gradient(self, block: BackwardBlock) -> None:
        multiply(block.dy_to_m)

    def _filter_gradient(self, dweight: Array) -> None:
        """dg = G^T dU G."""
        np.matmul(self.gg.T, _flat(self.du), out=_flat(self.filters))
        np.copyto(dweight, self.filters.transpose(3, 2, 0, 1))

    def _has_whole_tiles(self, images: Array) -> bool:
        """Whether the tiles fill an array exactly and its memory has the engine's order."""
        n, c, _, _ = images.shape
        inner = layout.native(images).strides[1:]
        ordered = inner == tuple(s * images.itemsize for s in (n * c, c, 1))
        return ordered and images.shape == self.whole_shape

    # The views. Everything below runs once for every array y, and once for every dy.

    def _bind_output(self, out: Array, keep: bool) -> None:
        """Points the views of the forward pass into `out`, or into scratch memory in its place."""
        if keep and self.v is None:
            self.v = np.empty(self._num_points(self.th) * self.nc, self.dtype)
        if not keep:
            self.v = None
        if self._is_bound(0, out, self.v):
            return
        is_whole = self._has_whole_tiles(out)
        half, products, v, whole = self.memory.scratch.take(
            self._one_axis,
            self._num_points(self.block_rows) * self.nf,
            0 if keep else self._num_points(self.block_rows) * self.nc,
            0 if is_whole else math.prod(self.whole_shape),
            dtype=self.dtype,
        )
        self.y = out if is_whole else layout.shaped(whole, self.whole_shape)
        self.forward_blocks = [
            self._forward_block(first, tb, half, products, self._v_of(first, tb, v))
            for first, tb in self._tile_rows()
        ]
        self._bound[0] = out, self.v, half

    def _bind_gradient(self, dy: Array, need_dx: bool) -> None:
        """The same for the views of the backward pass and `dy`."""
        g, m = self.geometry, self.m
        whole_dx = None
        if need_dx:
            shape = (self.n, g.c, m * self.dth, m * self.dtw)
            whole_dx = self.memory.gradient(shape, self.dtype)
        if self._is_bound(1, dy, self.v, whole_dx):
            return
        is_whole = self._has_whole_tiles(dy)
        half, products, v, du, du_part, db, db_part, filters, dv, z, whole = (
            self.memory.scratch.take(
                self._one_axis,
                self._num_points(self.block_rows) * self.nf,
                self._num_points(self.block_rows) * self.nc if self.v is None else 0,
                self.u.size,
                self.u.size,
                g.f,
                g.f,
                self.k**2 * g.c * g.f,
                self._num_points(self.th) * self.nc if need_dx else 0,
                m * self._gathered_points * self.nc if need_dx else 0,
                0 if is_whole else math.prod(self.whole_shape),
                dtype=self.dtype,
            )
        )
        self.du, self.du_part = du.reshape(self.u.shape), du_part.reshape(self.u.shape)
        self.db, self.db_part = db.reshape(1, g.f), db_part.reshape(1, g.f)
        self.filters = filters.reshape(self.k, self.k, g.c, g.f)
        self.dv = dv.reshape(-1, self.r * self.tw * self.nc)  # rows (tile row, xi)
        self.z = z.reshape(m, -1, self.nc)
        self.margins = [self.z[:, : self._before], self.z[:, self._before + self.r * self.tw :]]
        self.dy = dy if is_whole else layout.shaped(whole, self.whole_shape)
        self.whole_dx = whole_dx
        self.dx = None if whole_dx is None else whole_dx[:, :, : g.h, : g.w]
        self.backward_blocks = [
            self._backward_block(first, tb, half, products, self._v_of(first, tb, v))
            for first, tb in self._tile_rows()
        ]
        self._bound[1] = dy, self.v, whole_dx, half

    def _is_bound(self, index: int, *arrays: Array | None) -> bool:
        """Whether the views point into these arrays and into the scratch memory as it is now."""
        *bound, half = self._bound[index] or (None,)
        same = len(bound) == len(arrays) and all(map(operator.is_, bound, arrays))
        return same and self.memory.scratch.holds(half)

    def _tile_rows(self) -> list[tuple[int, int]]:
        """For each block, its first tile row and how many it has."""
        starts = range(0, self.th, self.block_rows)
        return [(first, min(self.block_rows, self.th - first)) for first in starts]

    def _num_points(self, tile_rows: int) -> int:
        """Points of the tiles of so many rows of tiles."""
        return self.r**2 * tile_rows * self.tw

    @property
    def _one_axis(self) -> int:
        """Elements of a block that is transformed along one axis."""
        m, r, tb, k = self.m, self.r, self.block_rows, self.k
        return max(tb * r * (m * self.tw + k - 1) * self.nc, tb * r * m * self.tw * self.nf)

    @property
    def _gathered_points(self) -> int:
        """Points along a row, with those before the first tile and behind the last: all zero."""
        reach = self.r * (self.dtw - 1) + self.first_point + self.gather.shape[1]
        return self._before + max(self.r * self.tw, reach)

    @property
    def _before(self) -> int:
        return max(0, -self.first_point)

    def _v_of(self, first: int, tb: int, scratch: Array) -> Array:
        """The transformed input of a block, flat: its part of what is kept, or scratch memory."""
        size = self._num_points(tb) * self.nc
        if self.v is None:
            return scratch[:size]
        start = self._num_points(first) * self.nc
        return self.v[start : start + size]

    def _forward_block(
        self, first: int, tb: int, half: Array, products: Array, v: Array
    ) -> ForwardBlock:
        points, positions = self.r**2, tb * self.tw * self.n
        m = products[: self._num_points(tb) * self.nf]
        m_points = m.reshape(points, positions, self.geometry.f)
        v_points = v.reshape(points, positions, self.geometry.c)
        return ForwardBlock(
            first=first,
            m_bias=m_points[self.r + 1].reshape(tb, -1),
            input_to_m=[*self._input_products(first, tb, half, v), (v_points, self.u, m_points)],
            m_to_output=self._output_products(first, tb, half, m),
        )

    def _backward_block(
        self, first: int, tb: int, half: Array, products: Array, v: Array
    ) -> BackwardBlock:
        g, r, positions = self.geometry, self.r, self.tw * self.n
        m = products[: self._num_points(tb) * self.nf]
        m_points = m.reshape(r * r, tb * positions, g.f)
        block = BackwardBlock(
            first=first,
            v=v.reshape(r * r, tb * positions, g.c),
            m=m_points,
            m_bias=m_points[r + 1],
            input_to_v=[] if self.v is not None else self._input_products(first, tb, half, v),
            dy_to_m=self._dy_products(first, tb, half, m),
            m_to_dv=[],
            dv_to_dx=[],
        )
        if self.whole_dx is not None:
            dv = self.dv[r * first : r * (first + tb)].reshape(tb, r * r, positions, g.c)
            by_row = m_points.reshape(r * r, tb, positions, g.f).transpose(1, 0, 2, 3)
            block.m_to_dv = [(by_row, self.ut, dv)]
            block.dv_to_dx = self._gather_products(
                self._num_gathered(first), self._num_gathered(first + tb), self.whole_dx
            )
        return block

    def _input_products(self, first: int, tb: int, half: Array, v: Array) -> list[Product]:
        """V = B^T d B: padded[m tu + i] -> [tu][xi][column] -> v[xi][eta][tu][tv]."""
        m, r, nc, tw = self.m, self.r, self.nc, self.tw
        row, e = (m * tw + self.k - 1) * nc, tb * tw * nc
        k, p = chunks(row)
        pixels = layout.native(self.padded)[m * first :]
        return [
            (
                self.bt,
                view(pixels, (tb, k, r, p), (m * row, p, row, 1)),
                view(half, (tb, k, r, p), (r * row, p, row, 1)),
            ),
            (
                self.bt,
                view(half, (tb, r, tw, r, nc), (r * row, row, m * nc, nc, 1)),
                view(v, (tb, r, tw, r, nc), (tw * nc, r * e, nc, e, 1)),
            ),
        ]

    def _output_products(self, first: int, tb: int, half: Array, products: Array) -> list[Product]:
        """Y = A^T M A: m[xi][eta][tu][tv] -> [a][eta][tu][tv] -> y[m tu + a][m tv + b]."""
        m, r, nf, tw = self.m, self.r, self.nf, self.tw
        y, e = layout.native(self.y), tb * tw * nf
        k, p = chunks(r * e)
        row = y.strides[0] // y.itemsize
        return [
            (
                self.at,
                view(products, (k, r, p), (p, r * e, 1)),
                view(half, (k, m, p), (p, r * e, 1)),
            ),
            (
                self.at,
                view(half, (m, tb, tw, r, nf), (r * e, tw * nf, nf, e, 1)),
                view(y[m * first :], (m, tb, tw, m, nf), (row, m * row, m * nf, nf, 1)),
            ),
        ]

    def _dy_products(self, first: int, tb: int, half: Array, products: Array) -> list[Product]:
        """dM = A dY A^T: dy[m tu + a][column] -> [tu][xi][column] -> m[xi][eta][tu][tv]."""
        m, r, nf, tw = self.m, self.r, self.nf, self.tw
        dy, e, width = layout.native(self.dy), tb * tw * nf, m * tw * nf
        k, p = chunks(width)
        row = dy.strides[0] // dy.itemsize
        return [
            (
                self.a,
                view(dy[m * first :], (tb, k, m, p), (m * row, p, row, 1)),
                view(half, (tb, k, r, p), (r * width, p, width, 1)),
            ),
            (
                self.a,
                view(half, (tb, r, tw, m, nf), (r * width, width, m * nf, nf, 1)),
                view(products, (tb, r, tw, r, nf), (tw * nf, r * e, nf, e, 1)),
            ),
        ]

    def _num_gathered(self, num_rows: int) -> int:
        """How many tile rows of dx can be gathered from the points of the first `num_rows`."""
        if num_rows == self.th:
            return self.dth
        reach = self.first_point + self.gather.shape[1]  # of tile row 0
        return min(self.dth, max(0, (self.r * num_rows - reach) // self.r + 1))

    def _gather_products(self, start: int, stop: int, whole_dx: Array) -> list[Product]:
        """dx = gather along both axes: dv[tu][xi][eta][tv] -> z[a][tv][eta] -> dx[m tu + a].

        For the tile rows [start, stop) of dx.
        """
        m, r, nc, tw, k = self.m, self.r, self.nc, self.tw, self.gather.shape[1]
        z, before, first = self.z, self._before, self.first_point
        dx = layout.native(whole_dx)
        z_row, dx_row, point = z.shape[1] * nc, dx.shape[1] * nc, r * tw * nc
        products: list[Product] = []
        for t in range(start, stop):
            # Above the first and below the last tile row there are no points to gather.
            low = max(0, r * t + first)
            high = min(r * t + first + k, r * self.th)
            used = self.gather[:, low - r * t - first : high - r * t - first]
            products += [
                (
                    used,
                    view(self.dv[low:], (r, tw, high - low, nc), (tw * nc, nc, point, 1)),
                    view(z[:, before:], (r, tw, m, nc), (nc, r * nc, z_row, 1)),
                ),
                (
                    self.gather,
                    view(z[:, before + first :], (m, self.dtw, k, nc), (z_row, r * nc, nc, 1)),
                    view(dx[m * t :], (m, self.dtw, m, nc), (dx_row, m * nc, nc, 1)),
                ),
            ]
        return products
