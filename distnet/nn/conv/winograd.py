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
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
from numpy.typing import DTypeLike

from distnet.base.arrays import Array, ceil_divide
from distnet.nn import layout
from distnet.nn.blocking import equal_parts, repeated
from distnet.nn.conv.algorithm import Algorithm
from distnet.nn.conv.geometry import Geometry
from distnet.nn.conv.winograd_transforms import POINTS, gather_matrix, transforms
from distnet.nn.layout import view
from distnet.nn.memory import Memory

_CHUNK = 16384  # columns of one product: short enough for BLAS to work without packing copies
_BLOCK_BYTES = 2 * 1024 * 1024  # products of one block of tile rows: long enough for few calls
_KEPT_BYTES = 8 * 1024 * 1024  # of transformed filters; larger ones are transformed when needed


Step = Callable[[], object]  # something to be done for a block, on views that are made once


def product(left: Array, right: Array, destination: Array) -> Step:
    """One matrix product, or one for each of several matrices."""
    return partial(np.matmul, left, right, destination)


def run(steps: list[Step]) -> None:
    """Does one after the other."""
    for step in steps:
        step()


def chunks(width: int) -> tuple[int, int]:
    """`width` columns as (number of chunks, columns of a chunk), exactly."""
    count = equal_parts(width, _CHUNK)
    return count, width // count


def _flat(filters: Array) -> Array:
    """Filters (k, k, C, F) or their points (r * r, C, F) as one row for each pixel or point."""
    return filters.reshape(-1, filters.shape[-2] * filters.shape[-1])


@dataclass
class ForwardBlock:
    """Some tile rows of a forward pass: what is multiplied for them, in order."""

    m_bias: Array  # (tile rows, tiles * N * F): point (1, 1) of m, which reaches all pixels alike
    input_to_m: list[Step]
    m_to_output: list[Step]


@dataclass
class ForwardViews:
    """All views of a forward pass."""

    y: Array  # (N, F, whole tiles): the output, or scratch memory
    u: Array  # (r*r, C, F): the transformed filters
    filters: Array  # room for k*k*C*F numbers, if the filters are transformed for each pass
    blocks: list[ForwardBlock]


@dataclass
class BackwardBlock:
    """Some tile rows of a backward pass. P = tile rows * tiles * N."""

    v: Array  # (r*r, P, C): the transformed input
    m: Array  # (r*r, P, F): the transformed output gradient
    m_bias: Array  # (P, F): point (1, 1) of m
    input_to_v: list[Step]  # none if v is that of the forward pass
    dy_to_m: list[Step]
    m_to_dx: list[Step]  # of the rows of dx for which all points are there with this block


@dataclass
class BackwardViews:
    """All views of a backward pass; what has a `_part` is a block's part of a sum."""

    dy: Array  # (N, F, whole tiles): the output gradient, or scratch memory
    dx: Array | None  # (N, C, H, W)
    du: Array  # (r*r, C, F): the gradient of the transformed filters
    du_part: Array
    db: Array  # (1, F)
    db_part: Array
    ut: Array  # (r*r, F, C): the transformed filters; unless they are kept, in the memory of du
    filters: Array  # room for k*k*C*F numbers
    margins: list[Array]  # points along a row before the first tile and behind the last: zero
    blocks: list[BackwardBlock]


class WinogradConvolution(Algorithm):
    """F(m x m, k x k); a subclass says which m."""

    m: ClassVar[int]
    pool: ClassVar[int] = 1  # the sides of y and dy are those of the convolution's output over this

    @classmethod
    def suits(cls, g: Geometry) -> bool:
        """Whether there are points for the kernel, and tiles as the matrices want them."""
        is_square = g.kh == g.kw > 1 and g.pad[0] == g.pad[1]
        return is_square and g.stride == (1, 1) and g.is_dense and cls.m + g.kh - 1 in POINTS

    @classmethod
    def multiplications(cls, g: Geometry) -> int:
        """Once for each point of a tile, also for tiles that stick out of the image."""
        m = cls.m
        return (m + g.kh - 1) ** 2 * ceil_divide(g.oh, m) * ceil_divide(g.ow, m)

    def __init__(self, geometry: Geometry, n: int, dtype: DTypeLike, memory: Memory) -> None:
        super().__init__(geometry, n, dtype, memory)
        g, m = geometry, self.m
        self.k, self.r = g.kh, m + g.kh - 1
        self.output_shape = (n, g.f, g.oh // self.pool, g.ow // self.pool)
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
        self.u_shape, self.ut_shape = (self.r**2, g.c, g.f), (self.r**2, g.f, g.c)
        self.keeps_filters = math.prod(self.u_shape) * self.dtype.itemsize <= _KEPT_BYTES
        if self.keeps_filters:
            self.u = memory.constant("u", self.u_shape, self.dtype)
            self.ut = memory.constant("ut", self.ut_shape, self.dtype)
        row_bytes = self.r**2 * self.tw * max(self.nc, self.nf) * self.dtype.itemsize
        self.block_rows = max(1, min(self.th, _BLOCK_BYTES // row_bytes))
        self.bias_row: Array | None = None  # for each tile of a row: (tiles * N * F)
        self.ones = np.ones((1, self.block_rows * self.tw * n), self.dtype)

    def _make_transforms(self) -> None:
        bt, on_one_axis, at = transforms(self.m, self.k)
        self.bt, self.at = bt.astype(self.dtype), at.astype(self.dtype)
        self.a = np.ascontiguousarray(self.at.T)
        self.gg = np.kron(on_one_axis, on_one_axis).astype(self.dtype)  # (r r, k k): both axes
        gather, self.first_point = gather_matrix(self.m, self.k, self.geometry.pad[0])
        self.gather = gather.astype(self.dtype)

    def load(self, weight: Array, bias: Array | None) -> None:
        """Takes the parameters, and transforms the filters unless they are large."""
        self.weight = weight
        self.bias_row = repeated(bias, self.tw * self.n, self.bias_row)
        if self.keeps_filters:
            half, other = self.memory.scratch.take(weight.size, weight.size, dtype=self.dtype)
            # BLAS wants both as they are read. To transform twice costs less than to transpose U.
            transposed = self._transform_filters(weight.transpose(2, 3, 0, 1), half, self.ut)
            self._transform_filters(transposed.swapaxes(2, 3), other, self.u)

    def _transform_filters(self, filters: Array, space: Array, out: Array) -> Array:
        """U = G g G^T of filters g (k, k, C, F), or (k, k, F, C), to `out` (r r, C, F).

        Returns the filters as they are copied into `space`, one behind the other.
        """
        copy = space.reshape(filters.shape)
        np.copyto(copy, filters)
        np.matmul(self.gg, _flat(copy), out=_flat(out))
        return copy

    def forward(self, x: Array, out: Array, keep: bool) -> None:
        """Block by block: V, M, Y. V, larger than x, stays if `keep`, else it is scratch."""
        self.receive(x)
        if not keep:
            self.v = None
        elif self.v is None:
            self.v = np.empty(self._num_points(self.th) * self.nc, self.dtype)
        views = self.memory.views(
            self.n, "forward", (out, self.v), lambda: self._forward_views(out)
        )
        if not self.keeps_filters:
            self._transform_filters(self.weight.transpose(2, 3, 1, 0), views.filters, views.u)
        for block in views.blocks:
            run(block.input_to_m)
            if self.bias_row is not None:
                np.add(block.m_bias, self.bias_row, out=block.m_bias)
            run(block.m_to_output)
        if views.y is not out:
            np.copyto(out, views.y[:, :, : out.shape[2], : out.shape[3]])

    def backward(
        self, dy: Array, dweight: Array, dbias: Array | None, need_dx: bool
    ) -> Array | None:
        """Block by block: dM, dU, dV, dx."""
        g, whole_dx = self.geometry, None
        if need_dx:
            shape = (self.n, g.c, self.m * self.dth, self.m * self.dtw)
            whole_dx = self.memory.gradient(shape, self.dtype)
        views = self.memory.views(
            self.n, "backward", (dy, self.v, whole_dx), lambda: self._backward_views(dy, whole_dx)
        )
        if views.dy is not dy:
            h, w = dy.shape[2:]
            np.copyto(views.dy[:, :, :h, :w], dy)
            views.dy[:, :, h:] = 0
            views.dy[:, :, :, w:] = 0
        for margin in views.margins:
            margin[...] = 0
        for i, block in enumerate(views.blocks):
            run(block.input_to_v)
            run(block.dy_to_m)
            self._add_product(i, block.v.transpose(0, 2, 1), block.m, views.du, views.du_part)
            if dbias is not None:
                ones = self.ones[:, : len(block.m_bias)]
                self._add_product(i, ones, block.m_bias, views.db, views.db_part)
            if self.keeps_filters:
                run(block.m_to_dx)
        if dbias is not None:
            np.copyto(dbias, views.db[0])
        # dg = G^T dU G
        dfilters = views.filters.reshape(self.k, self.k, g.c, g.f)
        np.matmul(self.gg.T, _flat(views.du), out=_flat(dfilters))
        np.copyto(dweight, dfilters.transpose(3, 2, 0, 1))
        if need_dx and not self.keeps_filters:
            self._transform_filters(self.weight.transpose(2, 3, 0, 1), views.filters, views.ut)
            for block in views.blocks:
                if len(views.blocks) > 1:
                    run(block.dy_to_m)  # once more: m is that of the last block
                run(block.m_to_dx)
        return views.dx

    @staticmethod
    def _add_product(i: int, left: Array, right: Array, total: Array, part: Array) -> None:
        """total += left @ right, or total = left @ right for the first of the parts, i = 0."""
        np.matmul(left, right, out=part if i else total)
        if i:
            np.add(total, part, out=total)

    def _has_whole_tiles(self, images: Array) -> bool:
        """Whether the tiles fill an array exactly and its memory has the engine's order."""
        return images.shape == self.whole_shape and layout.has_whole_rows(images)

    # The views. Everything below runs once for every array y, and once for every dy.

    def _forward_views(self, out: Array) -> ForwardViews:
        points, is_whole = self._num_points(self.block_rows), self._has_whole_tiles(out)
        num_u, num_weights = (0, 0) if self.keeps_filters else self._filter_sizes
        half, products, v, u, filters, whole = self.memory.scratch.take(
            self._one_axis,
            points * self.nf,
            points * self.nc if self.v is None else 0,
            num_u,
            num_weights,
            0 if is_whole else math.prod(self.whole_shape),
            dtype=self.dtype,
        )
        views = ForwardViews(
            y=out if is_whole else layout.shaped(whole, self.whole_shape),
            u=self.u if self.keeps_filters else u.reshape(self.u_shape),
            filters=filters,
            blocks=[],
        )
        for first, tb in self._tile_rows():
            m, v_block = products[: self._num_points(tb) * self.nf], self._v_of(first, tb, v)
            m_points = m.reshape(self.r**2, -1, self.geometry.f)
            v_points = v_block.reshape(self.r**2, -1, self.geometry.c)
            input_to_v = self._input_products(first, tb, half, v_block)
            views.blocks += [
                ForwardBlock(
                    m_bias=m_points[self.r + 1].reshape(tb, -1),
                    input_to_m=[*input_to_v, product(v_points, views.u, m_points)],
                    m_to_output=self._output_products(first, tb, half, m, views.y),
                )
            ]
        return views

    def _backward_views(self, dy: Array, whole_dx: Array | None) -> BackwardViews:
        g, points = self.geometry, self._num_points(self.block_rows)
        is_whole, need_dx = self._has_whole_tiles(dy), whole_dx is not None
        num_u, num_weights = self._filter_sizes
        half, products, v, du, du_part, db, db_part, filters, dv, z, whole = (
            self.memory.scratch.take(
                self._one_axis,
                points * self.nf,
                points * self.nc if self.v is None else 0,
                num_u,
                num_u if self.block_rows < self.th else 0,
                g.f,
                g.f,
                num_weights,
                self._num_points(self.th) * self.nc if need_dx else 0,
                self.m * self._gathered_points * self.nc if need_dx else 0,
                0 if is_whole else math.prod(self.whole_shape),
                dtype=self.dtype,
            )
        )
        dv = dv.reshape(-1, self.r * self.tw * self.nc)  # rows (tile row, xi)
        z = z.reshape(self.m, -1, self.nc)  # half-gathered: (a, point along a row, n c)
        views = BackwardViews(
            dy=dy if is_whole else layout.shaped(whole, self.whole_shape),
            dx=None if whole_dx is None else whole_dx[:, :, : g.h, : g.w],
            du=du.reshape(self.u_shape),
            du_part=du_part.reshape(-1, g.c, g.f),
            db=db.reshape(1, g.f),
            db_part=db_part.reshape(1, g.f),
            ut=self.ut if self.keeps_filters else du.reshape(-1, g.f, g.c),
            filters=filters,
            margins=[z[:, : self._before], z[:, self._before + self.r * self.tw :]],
            blocks=[],
        )
        for first, tb in self._tile_rows():
            m, v_block = products[: self._num_points(tb) * self.nf], self._v_of(first, tb, v)
            m_points = m.reshape(self.r**2, -1, g.f)
            block = BackwardBlock(
                v=v_block.reshape(self.r**2, -1, g.c),
                m=m_points,
                m_bias=m_points[self.r + 1],
                input_to_v=[],
                dy_to_m=self._dy_products(first, tb, half, m, views.dy),
                m_to_dx=[],
            )
            if self.v is None:
                block.input_to_v = self._input_products(first, tb, half, v_block)
            if whole_dx is not None:
                by_row = m_points.reshape(self.r**2, tb, -1, g.f).transpose(1, 0, 2, 3)
                dv_block = dv[self.r * first : self.r * (first + tb)]
                m_to_dv = product(by_row, views.ut, dv_block.reshape(tb, self.r**2, -1, g.c))
                rows = range(self._num_gathered(first), self._num_gathered(first + tb))
                block.m_to_dx = [m_to_dv, *self._gather_products(rows, dv, z, whole_dx)]
            views.blocks.append(block)
        return views

    def _tile_rows(self) -> list[tuple[int, int]]:
        """For each block, its first tile row and how many it has."""
        starts = range(0, self.th, self.block_rows)
        return [(first, min(self.block_rows, self.th - first)) for first in starts]

    @property
    def _filter_sizes(self) -> tuple[int, int]:
        """Elements of: all points U of the filters, the filters."""
        pairs = self.geometry.c * self.geometry.f
        return self.r**2 * pairs, self.k**2 * pairs

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

    def _input_products(self, first: int, tb: int, half: Array, v: Array) -> list[Step]:
        """V = B^T d B: padded[m tu + i] -> [tu][xi][column] -> v[xi][eta][tu][tv]."""
        m, r, nc, tw = self.m, self.r, self.nc, self.tw
        row, e = (m * tw + self.k - 1) * nc, tb * tw * nc
        k, p = chunks(row)
        pixels = layout.native(self.padded)[m * first :]
        return [
            product(
                self.bt,
                view(pixels, (tb, k, r, p), (m * row, p, row, 1)),
                view(half, (tb, k, r, p), (r * row, p, row, 1)),
            ),
            product(
                self.bt,
                view(half, (tb, r, tw, r, nc), (r * row, row, m * nc, nc, 1)),
                view(v, (tb, r, tw, r, nc), (tw * nc, r * e, nc, e, 1)),
            ),
        ]

    def _output_products(
        self, first: int, tb: int, half: Array, products: Array, y: Array
    ) -> list[Step]:
        """Y = A^T M A: m[xi][eta][tu][tv] -> [a][eta][tu][tv] -> y[m tu + a][m tv + b]."""
        m, r, nf, tw = self.m, self.r, self.nf, self.tw
        y, e = layout.native(y), tb * tw * nf
        k, p = chunks(r * e)
        row = y.strides[0] // y.itemsize
        return [
            product(
                self.at,
                view(products, (k, r, p), (p, r * e, 1)),
                view(half, (k, m, p), (p, r * e, 1)),
            ),
            product(
                self.at,
                view(half, (m, tb, tw, r, nf), (r * e, tw * nf, nf, e, 1)),
                view(y[m * first :], (m, tb, tw, m, nf), (row, m * row, m * nf, nf, 1)),
            ),
        ]

    def _dy_products(
        self, first: int, tb: int, half: Array, products: Array, dy: Array
    ) -> list[Step]:
        """dM = A dY A^T: dy[m tu + a][column] -> [tu][xi][column] -> m[xi][eta][tu][tv]."""
        m, r, nf, tw = self.m, self.r, self.nf, self.tw
        dy, e, width = layout.native(dy), tb * tw * nf, m * tw * nf
        k, p = chunks(width)
        row = dy.strides[0] // dy.itemsize
        return [
            product(
                self.a,
                view(dy[m * first :], (tb, k, m, p), (m * row, p, row, 1)),
                view(half, (tb, k, r, p), (r * width, p, width, 1)),
            ),
            product(
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

    def _gather_products(self, rows: range, dv: Array, z: Array, whole_dx: Array) -> list[Step]:
        """dx = gather along both axes: dv[tu][xi][eta][tv] -> z[a][tv][eta] -> dx[m tu + a].

        For some tile rows of dx.
        """
        m, r, nc, tw, k = self.m, self.r, self.nc, self.tw, self.gather.shape[1]
        before, first = self._before, self.first_point
        dx = layout.native(whole_dx)
        z_row, dx_row, point = z.shape[1] * nc, dx.shape[1] * nc, r * tw * nc
        steps: list[Step] = []
        for t in rows:
            # Above the first and below the last tile row there are no points to gather.
            low = max(0, r * t + first)
            high = min(r * t + first + k, r * self.th)
            used = self.gather[:, low - r * t - first : high - r * t - first]
            steps += [
                product(
                    used,
                    view(dv[low:], (r, tw, high - low, nc), (tw * nc, nc, point, 1)),
                    view(z[:, before:], (r, tw, m, nc), (nc, r * nc, z_row, 1)),
                ),
                product(
                    self.gather,
                    view(z[:, before + first :], (m, self.dtw, k, nc), (z_row, r * nc, nc, 1)),
                    view(dx[m * t :], (m, self.dtw, m, nc), (dx_row, m * nc, nc, 1)),
                ),
            ]
        return steps
