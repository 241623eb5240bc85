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
from dataclasses import dataclass
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
from numpy.typing import DTypeLike

from distnet.base.arrays import Array, ceil_divide
from distnet.nn import layout
from distnet.nn.blocking import Step, add_product, copy_in_squares, multiply, repeated, run
from distnet.nn.conv.algorithm import Algorithm
from distnet.nn.conv.geometry import Geometry
from distnet.nn.conv.winograd_tiles import Tiling, whole_product
from distnet.nn.conv.winograd_transforms import POINTS
from distnet.nn.memory import Memory

_LARGE_BYTES = 8 * 1024 * 1024  # of transformed filters: larger ones stay if needed once more
_SLICE = 32  # channels of such filters whose gradient is transformed at a time
_FEW_ROWS, _MANY_PAIRS = 16, 256 * 256  # where a direct product is faster, for 3 x 3 kernels


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
    filters: Array  # room for k*k*C*F numbers
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
    rest: list[Array]  # more room for an algorithm that splits dU: as du, and as filters
    margins: list[Array]  # points along a row before the first tile and behind the last: zero
    blocks: list[BackwardBlock]


class WinogradConvolution(Algorithm):
    """F(m x m, k x k); a subclass says which m."""

    m: ClassVar[int]
    tiling: ClassVar[type[Tiling]] = Tiling
    splits: ClassVar[bool] = False  # whether the gradient of the filters needs `BackwardViews.rest`

    @classmethod
    def suits(cls, g: Geometry) -> bool:
        """Whether there are points for the kernel, and tiles as the matrices want them."""
        is_square = g.kh == g.kw > 1 and g.pad[0] == g.pad[1]
        return is_square and g.stride == (1, 1) and g.is_dense and cls.m + g.kh - 1 in POINTS

    @classmethod
    def multiplications(cls, g: Geometry) -> int:
        """Once for each point of a tile, also for tiles that stick out of the image."""
        return (cls.m + g.kh - 1) ** 2 * cls._num_tiles(g)

    @classmethod
    def pays(cls, g: Geometry, n: int) -> bool:
        """Not if large filters are transformed, read and summed up for a few rows of V each."""
        return n * cls._num_tiles(g) > _FEW_ROWS or g.num_pairs < _MANY_PAIRS

    @classmethod
    def _num_tiles(cls, g: Geometry) -> int:
        return ceil_divide(g.oh, cls.m) * ceil_divide(g.ow, cls.m)

    def __init__(self, geometry: Geometry, n: int, dtype: DTypeLike, memory: Memory) -> None:
        super().__init__(geometry, n, dtype, memory)
        g, t = geometry, self.tiling(geometry, n, dtype, self.m)
        self.tiles = t
        self.output_shape = (n, g.f, g.oh // t.pool, g.ow // t.pool)
        self.padded = layout.zeros(t.padded_shape, dtype)
        self.inbox = g.interior(self.padded)
        self.v: Array | None = None  # of the last forward pass, if that was to be kept
        self.u_shape = (t.r**2, g.c, g.f)
        # The transformed filters, for a pass forward and for dx: BLAS wants both as they are read,
        # and to transform twice costs less than to transpose. None: they live for one call.
        self.u: Array | None = None
        self.ut: Array | None = None
        self.bias_row: Array | None = None  # for each tile of a row: (tiles * N * F)
        self.ones = np.ones((1, t.block_rows * t.tw * n), dtype)
        self.is_large = math.prod(self.u_shape) * self.dtype.itemsize > _LARGE_BYTES
        self.sums = {len(t.blocks)}  # where a sum of dU ends, as the number of the next block

    def load(self, weight: Array, bias: Array | None) -> None:
        """Takes the parameters. Filters are transformed when they are needed."""
        self.weight, self.num_passes = weight, 0
        self.has_u = self.has_ut = False  # whether what is kept is of these filters
        self.bias_row = repeated(bias, self.tiles.tw * self.n, self.bias_row)

    def _transform_filters(self, filters: Array, space: Array, out: Array) -> None:
        """U = G g G^T of filters g (k, k, C, F), or (k, k, F, C), to `out` (r r, C, F).

        The filters are copied into `space` before, one behind the other.
        """
        copy = space.reshape(filters.shape)
        copy_in_squares(filters, copy)
        np.matmul(self.tiles.gg, flat(copy), out=flat(out))

    def _begin_pass(self) -> None:
        """Decides whether transformed filters are kept.

        Large ones live for one call until there is a second pass forward with the same parameters.
        Then steps have several micro-batches, or an evaluation several batches, and the time that
        it takes to transform them each time is worth more than the memory.
        """
        self.num_passes += 1
        if self.u is None and (self.num_passes > 1 or not self.is_large):
            (points, c, f), take = self.u_shape, self.memory.constant
            self.u = take("u", (points, c, f), self.dtype)
            self.ut = take("ut", (points, f, c), self.dtype)

    def forward(self, x: Array, out: Array, keep: bool) -> None:
        """Block by block: V, M, Y. V, larger than x, stays if `keep`, else it is scratch."""
        self.receive(x)
        self._begin_pass()
        if not keep:
            self.v = None
        elif self.v is None:
            self.v = np.empty(self.tiles.num_points(self.tiles.th) * self.tiles.nc, self.dtype)
        views = self.memory.views(
            self.n, "forward", (out, self.v, self.u), lambda: self._forward_views(out)
        )
        if not self.has_u:
            self._transform_filters(self.weight.transpose(2, 3, 1, 0), views.filters, views.u)
            self.has_u = self.u is not None
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
        g = self.geometry
        dx = self.memory.gradient(self.tiles.dx_shape, self.dtype) if need_dx else None
        views = self.memory.views(
            self.n, "backward", (dy, self.v, dx, self.ut), lambda: self._backward_views(dy, dx)
        )
        if views.dy is not dy:
            h, w = dy.shape[2:]
            np.copyto(views.dy[:, :, :h, :w], dy)
            views.dy[:, :, h:] = 0
            views.dy[:, :, :, w:] = 0
        for margin in views.margins:
            margin[...] = 0
        if need_dx and self.ut is not None:
            self._transform_transposed(views)
        first = 0  # of the blocks whose dU are added up
        for i, block in enumerate(views.blocks):
            run(block.input_to_v)
            run(block.dy_to_m)
            if self.is_large and len(views.blocks) == 1 and not self.splits:
                self._filter_gradient_in_slices(block, views)
            else:
                v = block.v.transpose(0, 2, 1)
                add_product(i - first, v, block.m, views.du, views.du_part)
                if i + 1 in self.sums:
                    self._add_filter_gradient(views, is_first=first == 0)
                    first = i + 1
            if dbias is not None:
                ones = self.ones[:, : len(block.m_bias)]
                add_product(i, ones, block.m_bias, views.db, views.db_part)
            if self.ut is not None:
                run(block.m_to_dx)
        if dbias is not None:
            np.copyto(dbias, views.db[0])
        self._deliver(views.filters.reshape(*g.kernel, g.c, g.f), dweight)
        if need_dx and self.ut is None:
            self._transform_transposed(views)
            for block in views.blocks:
                if len(views.blocks) > 1:
                    run(block.dy_to_m)  # once more: m is that of the last block
                run(block.m_to_dx)
        return views.dx

    def _transform_transposed(self, views: BackwardViews) -> None:
        """The filters for dx, unless they are there."""
        if not self.has_ut:
            self._transform_filters(self.weight.transpose(2, 3, 0, 1), views.filters, views.ut)
            self.has_ut = self.ut is not None

    def _add_filter_gradient(self, views: BackwardViews, is_first: bool) -> None:
        """dg = G^T dU G, (k k, r r) @ (r r, C F), to `views.filters`; there is one sum."""
        np.matmul(self.tiles.gg.T, flat(views.du), out=self._dfilters(views))

    def _filter_gradient_in_slices(self, block: BackwardBlock, views: BackwardViews) -> None:
        """The gradient of the filters where there is one block, for some channels at a time.

        All of dU, larger than the filters, would be written to memory only to be read again.
        """
        dfilters = views.filters.reshape(-1, *self.u_shape[1:])  # (k k, C, F)
        for start in range(0, self.geometry.c, _SLICE):
            channels = slice(start, start + _SLICE)
            v = block.v[:, :, channels].transpose(0, 2, 1)  # (r r, channels, P)
            shape = *v.shape[:2], self.geometry.f
            du = views.du.reshape(-1)[: math.prod(shape)].reshape(shape)
            multiply(v, block.m, out=du)
            np.matmul(self.tiles.gg.T, flat(du), out=flat(dfilters[:, channels]))

    def _deliver(self, dfilters: Array, dweight: Array) -> None:
        """From (k, k, C, F), the sum of all, to (F, C, k, k)."""
        copy_in_squares(dfilters.transpose(3, 2, 0, 1), dweight)

    def _dfilters(self, views: BackwardViews) -> Array:
        """Room for dg, (k k, C F)."""
        return views.filters.reshape(self.tiles.k**2, -1)

    # The views. Everything below runs once for every array y, and once for every dy.

    def _forward_views(self, out: Array) -> ForwardViews:
        g, t = self.geometry, self.tiles
        points, is_whole = t.num_points(t.block_rows), t.has_whole_tiles(out)
        num_u, num_weights = self._filter_sizes
        room = self.memory.scratch.take_named(
            self.dtype,
            half=t.half_size,
            m=points * t.nf,
            v=points * t.nc if self.v is None else 0,
            u=num_u if self.u is None else 0,
            filters=num_weights,
            y=0 if is_whole else math.prod(t.y_shape),
        )
        views = ForwardViews(
            y=out if is_whole else layout.shaped(room.y, t.y_shape),
            u=room.u.reshape(self.u_shape) if self.u is None else self.u,
            filters=room.filters,
            blocks=[],
        )
        for rows in t.blocks:
            m, v = room.m[: t.num_points(len(rows)) * t.nf], self._v_of(rows, room.v)
            m_points = m.reshape(t.r**2, -1, g.f)  # (r r, P, F)
            v_points = v.reshape(t.r**2, -1, g.c)  # (r r, P, C)
            input_to_v = t.input_steps(rows, self.padded, room.half, v)
            block = ForwardBlock(
                m_bias=m_points[t.r + 1].reshape(len(rows), -1),
                input_to_m=[*input_to_v, whole_product(v_points, views.u, m_points)],
                m_to_output=t.output_steps(rows, m, room.half, views.y),
            )
            views.blocks.append(block)
        return views

    def _backward_views(self, dy: Array, whole_dx: Array | None) -> BackwardViews:
        g, t = self.geometry, self.tiles
        points, is_whole = t.num_points(t.block_rows), t.has_whole_tiles(dy)
        num_u, num_weights = self._filter_sizes
        room = self.memory.scratch.take_named(
            self.dtype,
            half=t.half_size,
            m=points * t.nf,
            v=points * t.nc if self.v is None else 0,
            du=num_u,
            du_part=num_u if len(t.blocks) > 1 else 0,
            db=g.f,
            db_part=g.f,
            filters=num_weights,
            rest_of_du=num_u * self.splits,
            rest_of_filters=num_weights * self.splits,
            dv=0 if whole_dx is None else t.num_points(t.th) * t.nc,
            z=0 if whole_dx is None else t.z_size,
            dy=0 if is_whole else math.prod(t.y_shape),
        )
        views = BackwardViews(
            dy=dy if is_whole else layout.shaped(room.dy, t.y_shape),
            dx=None if whole_dx is None else whole_dx[:, :, : g.h, : g.w],
            du=room.du.reshape(self.u_shape),
            du_part=room.du_part.reshape(-1, g.c, g.f),
            db=room.db.reshape(1, g.f),
            db_part=room.db_part.reshape(1, g.f),
            ut=room.du.reshape(-1, g.f, g.c) if self.ut is None else self.ut,
            filters=room.filters,
            rest=[room.rest_of_du, room.rest_of_filters],
            margins=t.margins(self._z(room)),
            blocks=[],
        )
        views.blocks += [self._backward_block(rows, room, views, whole_dx) for rows in t.blocks]
        return views

    def _backward_block(
        self, rows: range, room: SimpleNamespace, views: BackwardViews, whole_dx: Array | None
    ) -> BackwardBlock:
        g, t = self.geometry, self.tiles
        m, v = room.m[: t.num_points(len(rows)) * t.nf], self._v_of(rows, room.v)
        m_points = m.reshape(t.r**2, -1, g.f)  # (r r, P, F)
        block = BackwardBlock(
            v=v.reshape(t.r**2, -1, g.c),
            m=m_points,
            m_bias=m_points[t.r + 1],
            input_to_v=[],
            dy_to_m=t.gradient_steps(rows, views.dy, room.half, m),
            m_to_dx=[],
        )
        if self.v is None:
            block.input_to_v = t.input_steps(rows, self.padded, room.half, v)
        if whole_dx is not None:
            # dV = dM U^T, for each tile row all points: (tile rows, r r, tiles N, F) @ ut
            dv = room.dv.reshape(-1, t.r * t.tw * t.nc)  # ((tu, xi), (eta, tv, N, C))
            by_row = m_points.reshape(t.r**2, len(rows), -1, g.f).transpose(1, 0, 2, 3)
            dv_by_row = dv[t.r * rows.start : t.r * rows.stop].reshape(len(rows), t.r**2, -1, g.c)
            m_to_dv = whole_product(by_row, views.ut, dv_by_row)
            block.m_to_dx = [m_to_dv, *t.gather_steps(rows, dv, self._z(room), whole_dx)]
        return block

    def _z(self, room: SimpleNamespace) -> Array:
        return room.z.reshape(self.tiles.m, -1, self.tiles.nc)  # (a, points of a row, N C)

    @property
    def _filter_sizes(self) -> tuple[int, int]:
        """Elements of: all points U of the filters, the filters."""
        pairs = self.geometry.num_pairs
        return self.tiles.r**2 * pairs, self.tiles.k**2 * pairs

    def _v_of(self, rows: range, scratch: Array) -> Array:
        """The transformed input of a block, flat: its part of what is kept, or scratch memory."""
        start, size = (self.tiles.num_points(n) * self.tiles.nc for n in (rows.start, len(rows)))
        return scratch[:size] if self.v is None else self.v[start : start + size]


def flat(filters: Array) -> Array:
    """Filters (k, k, C, F) or their points (r * r, C, F) as one row for each pixel or point."""
    return filters.reshape(-1, filters.shape[-2] * filters.shape[-1])
