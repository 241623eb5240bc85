"""Convolution of few channels whose output is max-pooled while it is in the cache.

The pixels of a row are unrolled even columns first, so that of a row of output the left pixels of
all windows of 2 x 2 are one run of memory and the right ones another. Two rows at a time are
convolved and pooled, as `pooling.MaxPool2d` does it; what is written is a row of the pooled image.

`Sequential` puts this in the place of a convolution and a pooling layer.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from distnet.base.arrays import Array
from distnet.nn import layout
from distnet.nn.blocking import repeated
from distnet.nn.conv.direct import FewChannelConvolution
from distnet.nn.conv.geometry import Geometry
from distnet.nn.conv.pooling import give_to_larger, take_larger
from distnet.nn.memory import Memory


class PooledFewChannelConvolution(FewChannelConvolution):
    """A convolution and MaxPool2d(2) for one batch size; `out` and `dy` are pooled images.

    The bias is added to the maxima, of which there are fewer than pixels.
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
        """Takes the parameters: weight (F, C, KH, KW), bias (F,) if there is one."""
        super().load(weight, bias)
        self.bias_run = repeated(bias, self.run // self.geometry.f, self.bias_run)

    def forward(self, x: Array, out: Array, keep: bool) -> None:
        """From `x` (N, C, H, W) to `out` (N, F, OH / 2, OW / 2)."""
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
        """The gradients of the last forward pass; returns that of the input, (N, C, H, W)."""
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
