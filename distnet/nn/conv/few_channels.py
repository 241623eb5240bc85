"""Convolution of the first layer, whose images have 1 or 3 channels.

Runs of so few numbers are too short to be copied one by one. The rows of pixels are unrolled, with
pixels innermost, and overlapping views stand in for the shift along the columns.

Letters: images padded to HP x WP, output OH x OW, N images, C channels, F filters, kernel KH x KW,
stride SH x SW.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from distnet.base.arrays import Array
from distnet.nn import blocking, layout
from distnet.nn.conv.algorithm import Algorithm, halves_evenly
from distnet.nn.conv.geometry import Geometry
from distnet.nn.conv.pooling import give_to_larger, take_larger
from distnet.nn.memory import Memory


class FewChannelConvolution(Algorithm):
    """Unrolls along the rows, and sees the rest of the windows in views.

    unrolled[h][(kx, c)][v][n] = padded[h][SW v + kx][n][c], with a last row of ones for each h. The
    windows of output row u are the rows from SH u on, at a uniform distance: the matrix
    (K, OW * N), K = KH * (KW * C + 1), is a view. The bias is the weight of the first row of ones.
    `has_ones`: without them the convolution has no bias.
    """

    expects = "one group and dilation 1"
    has_ones = True

    @classmethod
    def suits(cls, g: Geometry) -> bool:
        """Whether the kernel has no gaps and sees all channels: such windows it unrolls."""
        return g.is_dense

    @classmethod
    def pooled(cls, g: Geometry) -> type[Algorithm] | None:
        """Two rows of the output are one of the pooled image."""
        return PooledFewChannelConvolution if halves_evenly(g) else None

    def __init__(self, geometry: Geometry, n: int, dtype: DTypeLike, memory: Memory) -> None:
        super().__init__(geometry, n, dtype, memory)
        g = geometry
        self.padded = layout.zeros((n, g.c, *g.padded_size), dtype)
        self.inbox = g.interior(self.padded)
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
            (g.stride[0] * row_depth * pixels, part, pixels, 1),
        )
        self.rows_shape = (g.oh, self.parts, part, g.f)  # of the output: (OH, parts, pixels, F)
        self.dweight_shape = (g.oh, self.parts, self.depth, g.f)  # what each product adds to it
        self.weight = memory.constant("weight", (g.kh, row_depth, g.f), dtype)
        self.shifts = self._shifts()

    def load(self, weight: Array, bias: Array | None) -> None:
        """Takes the parameters."""
        g = self.geometry
        inner = self.weight[:, : self.width].reshape(g.kh, g.kw, g.c, g.f)
        np.copyto(inner, weight.transpose(2, 3, 1, 0))
        if self.has_ones and bias is not None:
            np.copyto(self.weight[0, self.width], bias)

    def forward(self, x: Array, out: Array, keep: bool) -> None:
        """Unrolls, and multiplies row by row of the output."""
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
        """The products of each row added up, and its windows folded up."""
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
        self.receive(x)
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
        g, images, sw = self.geometry, layout.native(self.padded), self.geometry.stride[1]
        shifts = []
        for kx in range(g.kw):
            for c in range(g.c):
                pixels = images[:, kx : kx + sw * g.ow : sw, :, c]
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
        g, images, (sh, sw) = self.geometry, layout.native(dpadded), self.geometry.stride
        rows = rows.reshape(len(rows), -1, g.f)
        dwindows = np.matmul(self.weight.reshape(self.depth, -1), rows.transpose(0, 2, 1))
        by_shift = dwindows.reshape(len(rows), *self.weight.shape[:2], -1)
        for ky in range(g.kh):
            top = sh * first + ky
            for kx in range(g.kw):
                for c in range(g.c):
                    pixels = images[top : top + sh * len(rows) : sh, kx : kx + sw * g.ow : sw, :, c]
                    pixels = self._in_order(pixels)
                    pixels += by_shift[:, ky, kx * g.c + c].reshape(pixels.shape)


class PooledFewChannelConvolution(FewChannelConvolution):
    """With MaxPool2d(2) behind it, while the output is in the cache: y and dy are pooled images.

    The pixels of a row are unrolled even columns first, so that of a row of output the left pixels
    of all windows of 2 x 2 are one run of memory and the right ones another. Two rows at a time are
    convolved and pooled, as `pooling.MaxPool2d` does it; what is written is a row of the pooled
    image. The bias is added to the maxima, of which there are fewer than pixels.
    """

    has_ones = False

    def __init__(self, geometry: Geometry, n: int, dtype: DTypeLike, memory: Memory) -> None:
        super().__init__(geometry, n, dtype, memory)
        g = geometry
        self.output_shape = (n, g.f, g.oh // 2, g.ow // 2)
        self.run = g.ow // 2 * n * g.f  # a row of the pooled image
        self.right_wins = np.empty((g.oh // 2, 2, self.run), bool)
        self.lower_wins = np.empty((g.oh // 2, self.run), bool)
        self.bias_run: Array | None = None  # for each pixel of a row of the pooled image
        self.ones = np.ones((1, self.run // g.f), dtype)

    def load(self, weight: Array, bias: Array | None) -> None:
        """Takes the parameters."""
        super().load(weight, bias)
        self.bias_run = blocking.repeated(bias, self.run // self.geometry.f, self.bias_run)

    def forward(self, x: Array, out: Array, keep: bool) -> None:
        """Two rows at a time: multiplies, takes maxima, adds the bias."""
        self._unroll(x)
        slabs, copy = self._take(math.prod(self.output_shape))
        pair, left, right, columns = slabs
        weight = self.weight.reshape(self.depth, -1)
        images = self._as_runs(out)
        runs = copy.reshape(-1, self.run) if images is None else images
        for i, pooled in enumerate(runs):
            np.matmul(self.windows[2 * i : 2 * i + 2].transpose(0, 1, 3, 2), weight, out=pair)
            take_larger(left, right, columns, self.right_wins[i])
            take_larger(columns[0], columns[1], pooled, self.lower_wins[i])
            if self.bias_run is not None:
                np.add(pooled, self.bias_run, out=pooled)
        if images is None:
            np.copyto(layout.native(out), runs.reshape(layout.native(out).shape))

    def backward(
        self, dy: Array, dweight: Array, dbias: Array | None, need_dx: bool
    ) -> Array | None:
        """Two rows at a time: gives the gradient to the larger, multiplies, folds windows up."""
        f, sizes = self.geometry.f, (math.prod(self.dweight_shape), self.weight.size)
        slabs, copy, parts, total, db = self._take(dy.size, *sizes, dy.size // self.run * f)
        pair, left, right, columns = slabs
        images = self._as_runs(dy)
        if images is None:
            images = copy.reshape(-1, self.run)
            np.copyto(images.reshape(layout.native(dy).shape), layout.native(dy))
        parts = parts.reshape(self.dweight_shape)
        dpadded = self._dpadded() if need_dx else None
        for i, pooled in enumerate(images):
            give_to_larger(pooled, self.lower_wins[i], columns[0], columns[1])
            give_to_larger(columns, self.right_wins[i], left, right)
            rows = slice(2 * i, 2 * i + 2)
            np.matmul(self.windows[rows], pair, out=parts[rows])
            if dpadded is not None:
                self._fold(pair, rows.start, dpadded)
        self._parameter_gradients(parts, total.reshape(self.weight.shape), dweight, dbias)
        if dbias is not None:
            of_rows = db.reshape(-1, 1, f)
            np.matmul(self.ones, images.reshape(len(images), -1, f), out=of_rows)
            np.add.reduce(of_rows, axis=(0, 1), out=dbias)
        return None if dpadded is None else self.geometry.interior(dpadded)

    def _take(self, *sizes: int) -> list[Any]:
        """Scratch memory: slabs of two rows of pixels; arrays of the sizes that are asked for.

        The slabs: two rows (2, parts, pixels, F); their left and their right pixels, and the larger
        of these, all (2, run).
        """
        pair, columns, *others = self.memory.scratch.take(
            4 * self.run, 2 * self.run, *sizes, dtype=self.dtype
        )
        by_phase = pair.reshape(2, 2, self.run)
        rows = pair.reshape(2, self.parts, -1, self.geometry.f)
        return [(rows, by_phase[:, 0], by_phase[:, 1], columns.reshape(2, self.run)), *others]

    def _in_order(self, pixels: Array) -> Array:
        rows, columns, n = pixels.shape
        return pixels.reshape(rows, columns // 2, 2, n).swapaxes(1, 2)

    def _as_runs(self, images: Array) -> Array | None:
        """Pooled images as (OH / 2, run), a view, or None if the memory of `images` forbids it."""
        pixels = layout.native(images)
        return pixels.reshape(-1, self.run) if pixels.flags.c_contiguous else None
