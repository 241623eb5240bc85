"""Convolution of any geometry as blocked matrix products, in the engine's memory order.

`BlockedConvolution` unrolls a block of output rows at a time, windows in rows, channels innermost:
the runs that are copied are C numbers long, and the block stays in the cache for its product.
`FewChannelConvolution` is for the first layer, where C is 1 or 3 and such runs are too short: it
unrolls along the row only, pixels innermost, and lets overlapping views stand in for the shift
along the columns.

Letters: images padded to HP x WP, output OH x OW, N images, C channels, F filters, kernel KH x KW.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import DTypeLike

from distnet.base.arrays import Array, Shape
from distnet.nn import blocking, layout
from distnet.nn.conv.geometry import Geometry
from distnet.nn.memory import Memory

_BLOCK_BYTES = 1024 * 1024  # the unrolled windows of one block


class BlockedConvolution:
    """Forward and backward of one convolution for one batch size; unrolls twice to save memory."""

    def __init__(self, geometry: Geometry, n: int, dtype: DTypeLike, memory: Memory) -> None:
        g = self.geometry = geometry
        self.n, self.dtype, self.memory = n, np.dtype(dtype), memory
        # Without padding the images are read where they are.
        self.padded = layout.zeros((n, g.c, *g.padded_size), dtype) if g.pad else None
        self.inbox = None if self.padded is None else g.interior(self.padded)
        self.output_shape = (n, *g.output_shape)
        self.is_pointwise = (*g.kernel, g.stride, g.pad) == (1, 1, 1, 0)
        self.depth = g.kh * g.kw * g.c
        # Rows in the order of a window: (KH * KW * C, F).
        self.weight = memory.constant("weight", (self.depth, g.f), dtype)
        self.row_pixels = g.ow * n
        row_bytes = self.row_pixels * self.depth * self.dtype.itemsize
        self.block_rows = max(1, min(g.oh, _BLOCK_BYTES // row_bytes))
        self.block_pixels = self.block_rows * self.row_pixels
        self.bias_row: Array | None = None  # for each pixel of a row: (OW * N * F)
        self.ones = np.ones((1, self.block_pixels), dtype)

    def load(self, weight: Array, bias: Array | None) -> None:
        """Takes the parameters: weight (F, C, KH, KW), bias (F,) if there is one."""
        g = self.geometry
        np.copyto(self.weight.reshape(g.kh, g.kw, g.c, g.f), weight.transpose(2, 3, 1, 0))
        self.bias_row = blocking.repeated(bias, self.row_pixels, self.bias_row)

    def forward(self, x: Array, out: Array, keep: bool) -> None:
        """From `x` (N, C, H, W) to `out` (N, F, OH, OW)."""
        self.images = self._padded(x)
        windows, products = self._take()
        for rows in self._blocks():
            columns, y = self._unroll(rows, windows), layout.native(out)[rows]
            product = self._rows(y, products)  # (rows * OW * N, F)
            np.matmul(columns, self.weight, out=product)
            if self.bias_row is not None:
                by_row = product.reshape(len(y), -1)
                np.add(by_row, self.bias_row, out=by_row)
            if not y.flags.c_contiguous:
                np.copyto(y, product.reshape(y.shape))

    def backward(
        self, dy: Array, dweight: Array, dbias: Array | None, need_dx: bool
    ) -> Array | None:
        """The gradients of the last forward pass; returns that of the input, (N, C, H, W)."""
        g, shape = self.geometry, self.weight.shape
        windows, products, total, part, db_part = self._take(*[self.weight.size] * 2, g.f)
        total, part = total.reshape(shape), part.reshape(shape)
        total[...] = 0
        if dbias is not None:
            dbias[...] = 0
        dpadded = self._dpadded() if need_dx else None
        for rows in self._blocks():
            columns, of_rows = self._unroll(rows, windows), layout.native(dy)[rows]
            block = self._rows(of_rows, products)  # (rows * OW * N, F)
            if not of_rows.flags.c_contiguous:
                np.copyto(block.reshape(of_rows.shape), of_rows)
            np.matmul(columns.T, block, out=part)
            np.add(total, part, out=total)
            if dbias is not None:
                np.matmul(self.ones[:, : len(block)], block, out=db_part.reshape(1, -1))
                np.add(dbias, db_part, out=dbias)
            if dpadded is not None and self.is_pointwise:
                np.matmul(block, self.weight.T, out=self._pixels(dpadded, rows))
            elif dpadded is not None:
                np.matmul(block, self.weight.T, out=columns)
                self._fold(columns, dpadded, rows)
        np.copyto(dweight, total.reshape(g.kh, g.kw, g.c, g.f).transpose(3, 2, 0, 1))
        return None if dpadded is None else g.interior(dpadded)

    def _padded(self, x: Array) -> Array:
        """`x` in the engine's memory order with zeros around it; where it lies, if it lies so."""
        if self.padded is not None and self.inbox is not None:
            if x is not self.inbox:
                np.copyto(self.inbox, x)
            return self.padded
        if layout.native(x).flags.c_contiguous:
            return x
        images = self.memory.array("images", x.shape, self.dtype)
        np.copyto(images, x)
        return images

    def _dpadded(self) -> Array:
        """Room for the gradient of the padded images: zeros, where windows are to be added up."""
        g = self.geometry
        dpadded = self.memory.gradient((self.n, g.c, *g.padded_size), self.dtype)
        if not self.is_pointwise:
            dpadded[...] = 0
        return dpadded

    def _take(self, *sizes: int) -> list[Array]:
        """Scratch memory: the windows of a block, its products; the sizes that are asked for."""
        f = self.geometry.f
        depth = 0 if self.is_pointwise else self.depth  # pixels are windows where they lie
        windows, products, *others = self.memory.scratch.take(
            self.block_pixels * depth, self.block_pixels * f, *sizes, dtype=self.dtype
        )
        shaped = windows.reshape(self.block_pixels, depth), products.reshape(self.block_pixels, f)
        return [*shaped, *others]

    def _blocks(self) -> list[slice]:
        """The rows of the output, a block at a time."""
        starts = range(0, self.geometry.oh, self.block_rows)
        return [slice(s, min(s + self.block_rows, self.geometry.oh)) for s in starts]

    def _rows(self, block: Array, products: Array) -> Array:
        """Some rows of output images (rows, OW, N, F) as a matrix; in `products` if need be."""
        f = self.geometry.f
        if block.flags.c_contiguous:
            return block.reshape(-1, f)
        return products[: block.size // f]

    def _pixels(self, padded: Array, rows: slice) -> Array:
        """The pixels of some rows as a matrix, a view: they are the windows of a 1 x 1 kernel."""
        return layout.native(padded)[rows].reshape(-1, self.depth)

    def _unroll(self, rows: slice, windows: Array) -> Array:
        """The windows of some output rows, (rows * OW * N, KH * KW * C)."""
        if self.is_pointwise:
            return self._pixels(self.images, rows)
        columns = windows[: (rows.stop - rows.start) * self.row_pixels]
        for part, pixels in self._shifts(columns, self.images, rows):
            np.copyto(part, pixels)
        return columns

    def _fold(self, columns: Array, dpadded: Array, rows: slice) -> None:
        """Adds every window's elements back where they were taken from."""
        for part, pixels in self._shifts(columns, dpadded, rows):
            np.add(pixels, part, out=pixels)

    def _shifts(self, columns: Array, padded: Array, rows: slice) -> list[tuple[Array, Array]]:
        """For each element of a window: its columns, and where they lie in the padded images."""
        g, images = self.geometry, layout.native(padded)  # (HP, WP, N, C)
        count, s = rows.stop - rows.start, g.stride
        windows = columns.reshape(count, g.ow, -1, g.kh, g.kw, g.c)
        pairs = []
        for i in range(g.kh):
            first = rows.start * s + i
            for j in range(g.kw):
                pixels = images[first : first + s * count : s, j : j + s * g.ow : s]
                pairs.append((windows[:, :, :, i, j], pixels))  # both (rows, OW, N, C)
        return pairs


class FewChannelConvolution:
    """Forward and backward of one convolution for one batch size, for images of 1 to 4 channels.

    unrolled[h][(kx, c)][v][n] = padded[h][stride * v + kx][n][c], with a last row of ones for each
    h. The windows of output row u are the rows from stride * u on, at a uniform distance: the
    matrix (K, OW * N), K = KH * (KW * C + 1), is a view. The bias is the weight of the first row
    of ones. `has_ones`: without them the convolution has no bias.
    """

    has_ones = True

    def __init__(self, geometry: Geometry, n: int, dtype: DTypeLike, memory: Memory) -> None:
        g = self.geometry = geometry
        self.dtype, self.memory = np.dtype(dtype), memory
        self.padded = layout.zeros((n, g.c, *g.padded_size), dtype)
        self.inbox = g.interior(self.padded)
        self.output_shape: Shape = (n, *g.output_shape)
        self.width = g.kw * g.c
        height, pixels = g.padded_size[0], g.ow * n
        row_depth = self.width + self.has_ones
        self.unrolled = np.ones((height, row_depth, pixels), dtype)
        self.depth = g.kh * row_depth  # K
        self.parts = blocking.equal_parts(pixels, blocking.SMALL_PRODUCT // (self.depth * g.f))
        part = pixels // self.parts
        self.windows = layout.view(
            self.unrolled,
            (g.oh, self.parts, self.depth, part),
            (g.stride * row_depth * pixels, part, pixels, 1),
        )
        self.rows_shape = (g.oh, self.parts, part, g.f)  # of the output: (OH, parts, pixels, F)
        self.dweight_shape = (g.oh, self.parts, self.depth, g.f)  # what each product adds to it
        self.weight = memory.constant("weight", (g.kh, row_depth, g.f), dtype)
        self.shifts = self._shifts()

    def load(self, weight: Array, bias: Array | None) -> None:
        """Takes the parameters: weight (F, C, KH, KW), bias (F,) if there is one."""
        g = self.geometry
        inner = self.weight[:, : self.width].reshape(g.kh, g.kw, g.c, g.f)
        np.copyto(inner, weight.transpose(2, 3, 1, 0))
        if self.has_ones and bias is not None:
            np.copyto(self.weight[0, self.width], bias)

    def forward(self, x: Array, out: Array, keep: bool) -> None:
        """From `x` (N, C, H, W) to `out` (N, F, OH, OW)."""
        self._unroll(x)
        (copy,) = self.memory.scratch.take(math.prod(self.rows_shape), dtype=self.dtype)
        y = self._as_rows(out)
        rows = copy.reshape(self.rows_shape) if y is None else y
        weight = self.weight.reshape(self.depth, -1)
        np.matmul(self.windows.transpose(0, 1, 3, 2), weight, out=rows)
        if y is None:
            np.copyto(layout.native(out), rows.reshape(layout.native(out).shape))

    def backward(
        self, dy: Array, dweight: Array, dbias: Array | None, need_dx: bool
    ) -> Array | None:
        """The gradients of the last forward pass; returns that of the input, (N, C, H, W)."""
        sizes = [math.prod(self.dweight_shape), self.weight.size, math.prod(self.rows_shape)]
        parts, total, copy = self.memory.scratch.take(*sizes, dtype=self.dtype)
        rows = self._as_rows(dy)
        if rows is None:
            rows = copy.reshape(self.rows_shape)
            np.copyto(rows.reshape(layout.native(dy).shape), layout.native(dy))
        parts = parts.reshape(self.dweight_shape)
        np.matmul(self.windows, rows, out=parts)
        self._parameter_gradients(parts, total.reshape(self.weight.shape), dweight, dbias)
        if not need_dx:
            return None
        dpadded = self._dpadded()
        self._fold(rows, 0, dpadded)
        return self.geometry.interior(dpadded)

    def _unroll(self, x: Array) -> None:
        """Fills `unrolled` from the images."""
        if x is not self.inbox:
            np.copyto(self.inbox, x)
        for part, pixels in self.shifts:
            np.copyto(part, pixels)

    def _dpadded(self) -> Array:
        """Zeros for the gradient of the padded images, to which `_fold` adds."""
        dpadded = self.memory.gradient(self.padded.shape, self.dtype)
        dpadded[...] = 0
        return dpadded

    def _parameter_gradients(
        self, parts: Array, total: Array, dweight: Array, dbias: Array | None
    ) -> None:
        """The sum of (OH, parts, K, F) over rows and parts, as weight and bias."""
        g = self.geometry
        np.add.reduce(parts, axis=(0, 1), out=total.reshape(self.depth, -1))
        inner = total[:, : self.width].reshape(g.kh, g.kw, g.c, g.f)
        np.copyto(dweight, inner.transpose(3, 2, 0, 1))
        if self.has_ones and dbias is not None:
            np.copyto(dbias, total[0, self.width])

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
        if not layout.has_whole_rows(images):
            return None
        return layout.native(images).reshape(len(self.windows), self.parts, -1, self.geometry.f)

    def _fold(self, rows: Array, first: int, dpadded: Array) -> None:
        """Adds the input gradient of some rows of dy, from row `first` on, to `dpadded`."""
        g, images, s = self.geometry, layout.native(dpadded), self.geometry.stride
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
