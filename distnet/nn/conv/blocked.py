"""Convolution of any geometry as blocked matrix products, in the engine's memory order.

A block of output rows is unrolled at a time, windows in rows, channels innermost, and stays in the
cache for its product. What is copied is runs: the channels of a group in one pixel of one image. To
NumPy a run is one element of an opaque type, so that one call copies a block without a loop for the
few numbers of each.

Letters: images padded to HP x WP, output OH x OW, N images, C channels, F filters, kernel KH x KW,
G groups of CG = C / G channels and FG = F / G filters. A block has P = rows * OW * N pixels, whose
windows have K = KH * KW * CG elements in each group.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike

from distnet.base.arrays import Array, ceil_divide
from distnet.nn import blocking, layout
from distnet.nn.blocking import add_product, multiply
from distnet.nn.conv.algorithm import Algorithm
from distnet.nn.conv.geometry import Geometry
from distnet.nn.memory import Memory

_BLOCK_BYTES = 1024 * 1024  # the unrolled windows of one block
_BLOCK_PIXELS = 256  # and no fewer, or BLAS spends its time on packing the filters


class BlockedConvolution(Algorithm):
    """Unrolls twice, in forward and in backward, to save memory."""

    def __init__(self, geometry: Geometry, n: int, dtype: DTypeLike, memory: Memory) -> None:
        super().__init__(geometry, n, dtype, memory)
        g = geometry
        # Without padding the images are read where they are.
        self.padded = layout.zeros((n, g.c, *g.padded_size), dtype) if any(g.pad) else None
        if self.padded is not None:
            self.inbox = g.interior(self.padded)
        self.is_pointwise = g.kernel == g.stride == (1, 1) and g.pad == (0, 0)
        self.depth = g.kh * g.kw * (g.c // g.groups)  # K
        # In the order of a window: (G, K, FG), and for dx (G, FG, K), as BLAS reads them fastest.
        self.weight = memory.constant("weight", (g.groups, self.depth, g.f // g.groups), dtype)
        self.filters: Array | None = None
        self.run = np.dtype((np.void, g.c // g.groups * self.dtype.itemsize))
        self.row_pixels = g.ow * n
        row_bytes = self.row_pixels * g.groups * self.depth * self.dtype.itemsize
        long_enough = ceil_divide(_BLOCK_PIXELS, self.row_pixels)
        self.block_rows = min(g.oh, max(_BLOCK_BYTES // row_bytes, long_enough))
        self.block_pixels = self.block_rows * self.row_pixels
        self.bias_row: Array | None = None  # for each pixel of a row: (OW * N * F)
        self.ones = np.ones((1, self.block_pixels), dtype)

    def load(self, weight: Array, bias: Array | None) -> None:
        """Takes the parameters."""
        self.given, self.filters = self._by_group(weight), None
        in_order = self.given.transpose(0, 3, 4, 2, 1)  # (G, KH, KW, CG, FG)
        blocking.copy_in_squares(in_order, self.weight.reshape(in_order.shape))
        self.bias_row = blocking.repeated(bias, self.row_pixels, self.bias_row)

    def forward(self, x: Array, out: Array, keep: bool) -> None:
        """Block by block: unrolls, multiplies, adds the bias."""
        self.images = self._padded(x)
        windows, products = self._take()
        seen = self._seen()
        for rows in self._blocks():
            columns, y = self._unroll(seen, rows, windows), layout.native(out)[rows]
            product = self._rows(y, products)  # (P, F)
            multiply(columns, self.weight, out=self._of_groups(product))
            if self.bias_row is not None:
                by_row = product.reshape(len(y), -1)
                np.add(by_row, self.bias_row, out=by_row)
            if not y.flags.c_contiguous:
                np.copyto(y, product.reshape(y.shape))

    def backward(
        self, dy: Array, dweight: Array, dbias: Array | None, need_dx: bool
    ) -> Array | None:
        """Block by block: unrolls again, adds up the products, folds windows up."""
        g, shape = self.geometry, (self.geometry.groups, -1, self.depth)  # (G, FG, K)
        folded = 0 if self.is_pointwise or not need_dx else self.block_pixels * g.kh * g.kw * g.c
        windows, products, total, part, db_part, by_shift = self._take(
            *[self.weight.size] * 2, g.f, folded
        )
        if self.is_pointwise:  # the windows are in the order of the weight
            total = dweight
        total, part = total.reshape(shape), part.reshape(shape)
        padded_shape = self.n, g.c, *g.padded_size
        dpadded = self.memory.gradient(padded_shape, self.dtype) if need_dx else None
        seen = self._seen()
        for i, rows in enumerate(self._blocks()):
            columns, of_rows = self._unroll(seen, rows, windows), layout.native(dy)[rows]
            block = self._rows(of_rows, products)  # (P, F)
            if not of_rows.flags.c_contiguous:
                np.copyto(block.reshape(of_rows.shape), of_rows)
            of_groups = self._of_groups(block)  # (G, P, FG)
            add_product(i, of_groups.transpose(0, 2, 1), columns, total, part)
            if dbias is not None:
                ones = self.ones[:, : len(block)]
                add_product(i, ones, block, dbias.reshape(1, -1), db_part.reshape(1, -1))
            if dpadded is not None:
                into = self._pixels(dpadded, rows) if self.is_pointwise else columns
                multiply(of_groups, self._filters(), out=into)
                self._fold(columns, dpadded, rows, by_shift)
        if not self.is_pointwise:
            # (G, FG, KH, KW, CG) as (F, CG, KH, KW)
            in_order = total.reshape(*total.shape[:2], *g.kernel, -1).transpose(0, 1, 4, 2, 3)
            np.copyto(self._by_group(dweight), in_order)
        return None if dpadded is None else g.interior(dpadded)

    def _by_group(self, weight: Array) -> Array:
        """Weights (F, CG, KH, KW) as (G, FG, CG, KH, KW), a view."""
        return weight.reshape(self.geometry.groups, -1, *weight.shape[1:])

    def _filters(self) -> Array:
        """The filters for dx, (G, FG, K); those of a 1 x 1 kernel lie so."""
        if self.filters is None:
            shape = self.geometry.groups, -1, self.depth
            if self.is_pointwise:
                self.filters = self.given.reshape(shape)
            else:
                in_order = self.given.transpose(0, 1, 3, 4, 2)  # (G, FG, KH, KW, CG)
                copy = self.memory.constant("filters", in_order.shape, self.dtype)
                np.copyto(copy, in_order)
                self.filters = copy.reshape(shape)
        return self.filters

    def _of_groups(self, pixels: Array) -> Array:
        """Pixels (P, C) or (P, F) as (G, P, CG) or (G, P, FG), a view."""
        return pixels.reshape(len(pixels), self.geometry.groups, -1).transpose(1, 0, 2)

    def _padded(self, x: Array) -> Array:
        """`x` in the engine's memory order with zeros around it; where it lies, if it lies so."""
        if self.padded is not None:
            self.receive(x)
            return self.padded
        if layout.native(x).flags.c_contiguous:
            return x
        images = self.memory.array("images", x.shape, self.dtype)
        np.copyto(images, x)
        return images

    def _take(self, *sizes: int) -> list[Array]:
        """Scratch memory: the windows of a block (G P K); products (P, F); the sizes asked for."""
        depth = 0 if self.is_pointwise else self.depth  # pixels are windows as they lie
        windows, products, *others = self.memory.scratch.take(
            self.geometry.groups * self.block_pixels * depth,
            self.block_pixels * self.geometry.f,
            *sizes,
            dtype=self.dtype,
        )
        return [windows, products.reshape(self.block_pixels, -1), *others]

    def _blocks(self) -> list[slice]:
        """The rows of the output, a block at a time."""
        starts = range(0, self.geometry.oh, self.block_rows)
        return [slice(s, min(s + self.block_rows, self.geometry.oh)) for s in starts]

    def _rows(self, block: Array, products: Array) -> Array:
        """Some rows of output images (rows, OW, N, F) as (P, F); in `products` if need be."""
        f = self.geometry.f
        if block.flags.c_contiguous:
            return block.reshape(-1, f)
        return products[: block.size // f]

    def _pixels(self, padded: Array, rows: slice) -> Array:
        """The pixels of some rows (G, P, CG), a view: they are the windows of a 1 x 1 kernel."""
        return self._of_groups(layout.native(padded)[rows].reshape(-1, self.geometry.c))

    def _seen(self) -> Array:
        """The windows where they lie, as runs (G, OH, OW, N, KH, KW): a view that overlaps."""
        if self.is_pointwise:
            return self.images
        g, groups = self.geometry, len(self.weight)
        images = layout.native(self.images).view(self.run)  # (HP, WP, N, G)
        (sh, sw), (dh, dw) = g.stride, g.dilation
        pixel, row = self.n * groups, images[0].size
        return layout.view(
            images,
            (groups, g.oh, g.ow, self.n, *g.kernel),
            (1, sh * row, sw * pixel, groups, dh * row, dw * pixel),
        )

    def _unroll(self, seen: Array, rows: slice, windows: Array) -> Array:
        """The windows of some output rows, (G, P, K)."""
        if self.is_pointwise:
            return self._pixels(self.images, rows)
        groups, depth = self.geometry.groups, self.depth
        num_pixels = (rows.stop - rows.start) * self.row_pixels
        columns = windows[: groups * num_pixels * depth].reshape(groups, num_pixels, depth)
        np.copyto(self._runs(columns), seen[:, rows])
        return columns

    def _fold(self, columns: Array, dpadded: Array, rows: slice, by_shift: Array) -> None:
        """Adds every window's elements back where they were taken from.

        In `by_shift` those that are the same element of their windows come to lie together, so that
        what is added is runs of all channels of all images.
        """
        if self.is_pointwise:
            return
        g, images = self.geometry, layout.native(dpadded)  # (HP, WP, N, C)
        (sh, sw), (dh, dw), count = g.stride, g.dilation, rows.stop - rows.start
        parts = by_shift[: columns.size].reshape(*g.kernel, count, g.ow, self.n, g.c)
        np.copyto(parts.view(self.run), self._runs(columns).transpose(4, 5, 1, 2, 3, 0))
        # Zeroed just before they are added to, while they are in the cache.
        images[self._rows_before(rows.start) : self._rows_before(rows.stop)] = 0
        for i in range(g.kh):
            first = rows.start * sh + i * dh
            for j in range(g.kw):
                pixels = images[first : first + sh * count : sh, j * dw : j * dw + sw * g.ow : sw]
                np.add(pixels, parts[i, j], out=pixels)

    def _rows_before(self, row: int) -> int:
        """How many rows of the padded images the windows of output rows before `row` reach."""
        g = self.geometry
        if row == g.oh:
            return g.padded_size[0]
        return (row - 1) * g.stride[0] + (g.kh - 1) * g.dilation[0] + 1 if row else 0

    def _runs(self, columns: Array) -> Array:
        """Windows (G, P, K) as runs, (G, rows, OW, N, KH, KW)."""
        shape = len(columns), -1, self.geometry.ow, self.n, *self.geometry.kernel
        return columns.view(self.run).reshape(shape)
