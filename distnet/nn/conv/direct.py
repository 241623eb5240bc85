"""Convolution of any geometry as blocked matrix products, in the engine's memory order.

`BlockedConvolution` unrolls a block of output rows at a time, windows in rows, channels innermost:
the runs that are copied are C numbers long, and the block stays in the cache for its product.
`FewChannelConvolution` is for the first layer, where C is 1 or 3 and such runs are too short: it
unrolls along the row only, pixels innermost, and lets overlapping views stand in for the shift
along the columns.

Letters: images padded to HP x WP, output OH x OW, N images, C channels, F filters, kernel KH x KW.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike

from distnet.base.arrays import Array
from distnet.nn import blocking, layout
from distnet.nn.conv.geometry import Geometry
from distnet.nn.scratch import Scratch

_BLOCK_BYTES = 1024 * 1024  # the unrolled windows of one block


class BlockedConvolution:
    """Forward and backward of one convolution for one batch size; unrolls twice to save memory."""

    def __init__(self, geometry: Geometry, n: int, dtype: DTypeLike, scratch: Scratch) -> None:
        g = self.geometry = geometry
        self.dtype, self.scratch = np.dtype(dtype), scratch
        self.padded = layout.zeros((n, g.c, *g.padded_size), dtype)
        self.dpadded = layout.empty((n, g.c, *g.padded_size), dtype)
        self.inbox = g.interior(self.padded)
        self.output_shape = (n, *g.output_shape)
        self.is_pointwise = (*g.kernel, g.stride, g.pad) == (1, 1, 1, 0)
        self.depth = g.kh * g.kw * g.c
        self.weight = np.empty((self.depth, g.f), dtype)  # rows in the order of a window
        self.dweight, self.dweight_part = np.empty_like(self.weight), np.empty_like(self.weight)
        self.row_pixels = g.ow * n
        row_bytes = self.row_pixels * self.depth * self.dtype.itemsize
        self.block_rows = max(1, min(g.oh, _BLOCK_BYTES // row_bytes))
        self.bias_tile = np.empty((self.block_rows * self.row_pixels, g.f), dtype)
        self.ones = np.ones((1, self.block_rows * self.row_pixels), dtype)
        self.db_part = np.empty((1, g.f), dtype)
        scratch.reserve(*self._scratch_sizes(), dtype=dtype)
        self.columns: Array | None = None

    def load(self, weight: Array, bias: Array | None) -> None:
        """Takes the parameters: weight (F, C, KH, KW), bias (F,) if there is one."""
        g = self.geometry
        np.copyto(self.weight.reshape(g.kh, g.kw, g.c, g.f), weight.transpose(2, 3, 1, 0))
        self.has_bias = bias is not None
        if bias is not None:
            np.copyto(self.bias_tile, bias)

    def forward(self, out: Array) -> None:
        """From `inbox` (N, C, H, W) to `out` (N, F, OH, OW)."""
        for rows in self._blocks():
            columns, y = self._unroll(rows), layout.native(out)[rows]
            product = self._rows(y)
            np.matmul(columns, self.weight, out=product)
            if self.has_bias:
                np.add(product, self.bias_tile[: len(product)], out=product)
            if not y.flags.c_contiguous:
                np.copyto(y, product.reshape(y.shape))

    def backward(
        self, dy: Array, dweight: Array, dbias: Array | None, need_dx: bool
    ) -> Array | None:
        """The gradients of the last forward pass; returns that of the input, (N, C, H, W)."""
        g = self.geometry
        self.dweight[...] = 0
        if dbias is not None:
            dbias[...] = 0
        if need_dx and not self.is_pointwise:
            self.dpadded[...] = 0
        for rows in self._blocks():
            columns, of_rows = self._unroll(rows), layout.native(dy)[rows]
            block = self._rows(of_rows)
            if not of_rows.flags.c_contiguous:
                np.copyto(block.reshape(of_rows.shape), of_rows)
            np.matmul(columns.T, block, out=self.dweight_part)
            np.add(self.dweight, self.dweight_part, out=self.dweight)
            if dbias is not None:
                np.matmul(self.ones[:, : len(block)], block, out=self.db_part)
                np.add(dbias, self.db_part[0], out=dbias)
            if need_dx and self.is_pointwise:
                np.matmul(block, self.weight.T, out=self._pixels(self.dpadded, rows))
            elif need_dx:
                np.matmul(block, self.weight.T, out=columns)
                self._fold(columns, rows)
        np.copyto(dweight, self.dweight.reshape(g.kh, g.kw, g.c, g.f).transpose(3, 2, 0, 1))
        return g.interior(self.dpadded) if need_dx else None

    def _blocks(self) -> list[slice]:
        if self.columns is None:
            columns, products = self.scratch.take(*self._scratch_sizes(), dtype=self.dtype)
            self.columns = columns.reshape(-1, self.depth)
            self.products = products.reshape(-1, self.geometry.f)
        starts = range(0, self.geometry.oh, self.block_rows)
        return [slice(s, min(s + self.block_rows, self.geometry.oh)) for s in starts]

    def _scratch_sizes(self) -> tuple[int, int]:
        """Elements of: the unrolled windows of a block, their products."""
        pixels = self.block_rows * self.row_pixels
        return pixels * self.depth, pixels * self.geometry.f

    def _rows(self, block: Array) -> Array:
        """Some rows of output images (rows, OW, N, F) as a matrix; of memory apart if need be."""
        f = self.geometry.f
        if block.flags.c_contiguous:
            return block.reshape(-1, f)
        return self.products[: block.size // f]

    def _pixels(self, padded: Array, rows: slice) -> Array:
        """The pixels of some rows as a matrix, a view: they are the windows of a 1 x 1 kernel."""
        return layout.native(padded)[rows].reshape(-1, self.depth)

    def _unroll(self, rows: slice) -> Array:
        """The windows of some output rows, (rows * OW * N, KH * KW * C)."""
        if self.is_pointwise:
            return self._pixels(self.padded, rows)
        assert self.columns is not None
        columns = self.columns[: (rows.stop - rows.start) * self.row_pixels]
        for part, pixels in self._shifts(columns, self.padded, rows):
            np.copyto(part, pixels)
        return columns

    def _fold(self, columns: Array, rows: slice) -> None:
        """Adds every window's elements back where they were taken from."""
        for part, pixels in self._shifts(columns, self.dpadded, rows):
            np.add(pixels, part, out=pixels)

    def _shifts(self, columns: Array, padded: Array, rows: slice) -> list[tuple[Array, Array]]:
        """For each element of a window: its columns, and where they lie in the padded images."""
        g, images = self.geometry, layout.native(padded)
        count, s = rows.stop - rows.start, g.stride
        windows = columns.reshape(count, g.ow, -1, g.kh, g.kw, g.c)
        pairs = []
        for i in range(g.kh):
            first = rows.start * s + i
            for j in range(g.kw):
                pixels = images[first : first + s * count : s, j : j + s * g.ow : s]
                pairs.append((windows[:, :, :, i, j], pixels))
        return pairs


class FewChannelConvolution:
    """Forward and backward of one convolution for one batch size, for images of 1 to 4 channels.

    unrolled[h][(kx, c)][v][n] = padded[h][stride * v + kx][n][c], with a last row of ones for each
    h. The windows of output row u are the rows from stride * u on, at a uniform distance: the
    matrix (K, OW * N), K = KH * (KW * C + 1), is a view. The bias is the weight of the first row
    of ones. `has_ones`: without them the convolution has no bias.
    """

    has_ones = True

    def __init__(self, geometry: Geometry, n: int, dtype: DTypeLike) -> None:
        g = self.geometry = geometry
        self.padded = layout.zeros((n, g.c, *g.padded_size), dtype)
        self.dpadded = layout.empty((n, g.c, *g.padded_size), dtype)
        self.inbox = g.interior(self.padded)
        self.output_shape = (n, *g.output_shape)
        self.width = g.kw * g.c
        height, pixels = g.padded_size[0], g.ow * n
        row_depth = self.width + self.has_ones
        self.unrolled = np.ones((height, row_depth, pixels), dtype)
        self.depth = g.kh * row_depth
        self.parts = blocking.equal_parts(pixels, blocking.SMALL_PRODUCT // (self.depth * g.f))
        part = pixels // self.parts
        self.windows = layout.view(
            self.unrolled,
            (g.oh, self.parts, self.depth, part),
            (g.stride * row_depth * pixels, part, pixels, 1),
        )
        self.weight = np.zeros((g.kh, row_depth, g.f), dtype)
        self.dweight = np.empty((g.oh, self.parts, self.depth, g.f), dtype)
        self.dweight_sum = np.empty_like(self.weight)
        self.rows = np.empty((g.oh, self.parts, part, g.f), dtype)
        self.shifts = self._shifts()

    def load(self, weight: Array, bias: Array | None) -> None:
        """Takes the parameters: weight (F, C, KH, KW), bias (F,) if there is one."""
        g = self.geometry
        inner = self.weight[:, : self.width].reshape(g.kh, g.kw, g.c, g.f)
        np.copyto(inner, weight.transpose(2, 3, 1, 0))
        if self.has_ones and bias is not None:
            np.copyto(self.weight[0, self.width], bias)

    def forward(self, out: Array) -> None:
        """From `inbox` (N, C, H, W) to `out` (N, F, OH, OW)."""
        for part, pixels in self.shifts:
            np.copyto(part, pixels)
        y = self._as_rows(out)
        rows = self.rows if y is None else y
        weight = self.weight.reshape(self.depth, -1)
        np.matmul(self.windows.transpose(0, 1, 3, 2), weight, out=rows)
        if y is None:
            np.copyto(layout.native(out), rows.reshape(layout.native(out).shape))

    def backward(
        self, dy: Array, dweight: Array, dbias: Array | None, need_dx: bool
    ) -> Array | None:
        """The gradients of the last forward pass; returns that of the input, (N, C, H, W)."""
        rows = self._as_rows(dy)
        if rows is None:
            rows = self.rows
            np.copyto(rows.reshape(layout.native(dy).shape), layout.native(dy))
        np.matmul(self.windows, rows, out=self.dweight)
        self._parameter_gradients(dweight, dbias)
        if not need_dx:
            return None
        self.dpadded[...] = 0
        self._fold(rows, 0)
        return self.geometry.interior(self.dpadded)

    def _parameter_gradients(self, dweight: Array, dbias: Array | None) -> None:
        """The sum over rows and parts, as weight and bias."""
        g = self.geometry
        np.add.reduce(self.dweight, axis=(0, 1), out=self.dweight_sum.reshape(self.depth, -1))
        inner = self.dweight_sum[:, : self.width].reshape(g.kh, g.kw, g.c, g.f)
        np.copyto(dweight, inner.transpose(3, 2, 0, 1))
        if self.has_ones and dbias is not None:
            np.copyto(dbias, self.dweight_sum[0, self.width])

    def _shifts(self) -> list[tuple[Array, Array]]:
        """For each kx and c: the unrolled rows and where they lie in the images."""
        g, images = self.geometry, layout.native(self.padded)
        shifts = []
        for kx in range(g.kw):
            for c in range(g.c):
                pixels = images[:, kx : kx + g.stride * g.ow : g.stride, :, c]
                pixels = self._in_order(pixels)
                shifts.append((self.unrolled[:, kx * g.c + c].reshape(pixels.shape), pixels))
        return shifts

    def _in_order(self, pixels: Array) -> Array:
        """Pixels (rows, OW, N), a view, in the order in which a row is unrolled."""
        return pixels

    def _as_rows(self, images: Array) -> Array | None:
        """(OH, parts, OW * N / parts, F), a view, or None if the memory of `images` forbids it."""
        rows = layout.native(images)
        oh, _, n, f = rows.shape
        if rows.strides[1:] != tuple(s * rows.itemsize for s in (n * f, f, 1)):
            return None
        return rows.reshape(oh, self.parts, -1, f)

    def _fold(self, rows: Array, first: int) -> None:
        """Adds the input gradient of some rows of dy, from row `first` on, to `dpadded`."""
        g, images, s = self.geometry, layout.native(self.dpadded), self.geometry.stride
        rows = rows.reshape(len(rows), -1, g.f)
        dwindows = np.matmul(self.weight.reshape(self.depth, -1), rows.transpose(0, 2, 1))
        by_shift = dwindows.reshape(len(rows), *self.weight.shape[:2], -1)
        for ky in range(g.kh):
            top = s * first + ky
            for kx in range(g.kw):
                for c in range(g.c):
                    pixels = images[top : top + s * len(rows) : s, kx : kx + s * g.ow : s, :, c]
                    pixels = self._in_order(pixels)
                    pixels += by_shift[:, ky, kx * g.c + c].reshape(pixels.shape)
