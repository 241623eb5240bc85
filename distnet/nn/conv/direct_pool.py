"""Convolution of few channels whose output is max-pooled while it is in the cache.

The pixels of a row are unrolled even columns first, so that of a row of output the left pixels of
all windows of 2 x 2 are one run of memory and the right ones another. Two rows at a time are
convolved and pooled, as `pooling.MaxPool2d` does it; what is written is a row of the pooled image.

`Sequential` puts this in the place of a convolution and a pooling layer.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike

from distnet.base.arrays import Array
from distnet.nn import layout
from distnet.nn.conv.direct import FewChannelConvolution
from distnet.nn.conv.geometry import Geometry
from distnet.nn.conv.pooling import give_to_larger, take_larger
from distnet.nn.scratch import Scratch


class PooledFewChannelConvolution(FewChannelConvolution):
    """A convolution and MaxPool2d(2) for one batch size; `out` and `dy` are pooled images.

    The bias is added to the maxima, of which there are fewer than pixels.
    """

    has_ones = False

    def __init__(self, geometry: Geometry, n: int, dtype: DTypeLike, scratch: Scratch) -> None:
        super().__init__(geometry, n, dtype)
        g, self.scratch = geometry, scratch
        self.output_shape = (n, g.f, g.oh // 2, g.ow // 2)
        self.run = g.ow // 2 * n * g.f  # a row of the pooled image
        self.pooled = layout.empty(self.output_shape, dtype)
        self.right_wins = np.empty((g.oh // 2, 2, self.run), bool)
        self.lower_wins = np.empty((g.oh // 2, self.run), bool)
        self.bias_run = np.empty(self.run, dtype)
        self.ones = np.ones((1, self.run // g.f), dtype)
        self.dbias = np.empty((g.oh // 2, 1, g.f), dtype)
        self.scratch.reserve(4 * self.run, 2 * self.run, dtype=dtype)
        self.pair: Array | None = None

    def load(self, weight: Array, bias: Array | None) -> None:
        """Takes the parameters: weight (F, C, KH, KW), bias (F,) if there is one."""
        super().load(weight, bias)
        self.has_bias = bias is not None
        if bias is not None:
            np.copyto(self.bias_run.reshape(-1, self.geometry.f), bias)

    def forward(self, out: Array) -> None:
        """From `inbox` (N, C, H, W) to `out` (N, F, OH / 2, OW / 2)."""
        for part, pixels in self.shifts:
            np.copyto(part, pixels)
        pair, left, right, columns = self._slabs()
        weight = self.weight.reshape(self.depth, -1)
        images = self._as_runs(out)
        for i, pooled in enumerate(self._runs(self.pooled) if images is None else images):
            np.matmul(self.windows[2 * i : 2 * i + 2].transpose(0, 1, 3, 2), weight, out=pair)
            take_larger(left, right, columns, self.right_wins[i])
            take_larger(columns[0], columns[1], pooled, self.lower_wins[i])
            if self.has_bias:
                np.add(pooled, self.bias_run, out=pooled)
        if images is None:
            np.copyto(out, self.pooled)

    def backward(
        self, dy: Array, dweight: Array, dbias: Array | None, need_dx: bool
    ) -> Array | None:
        """The gradients of the last forward pass; returns that of the input, (N, C, H, W)."""
        pair, left, right, columns = self._slabs()
        images = self._as_runs(dy)
        if images is None:
            np.copyto(self.pooled, dy)
            images = self._runs(self.pooled)
        if need_dx:
            self.dpadded[...] = 0
        for i, pooled in enumerate(images):
            give_to_larger(pooled, self.lower_wins[i], columns[0], columns[1])
            give_to_larger(columns, self.right_wins[i], left, right)
            rows = slice(2 * i, 2 * i + 2)
            np.matmul(self.windows[rows], pair, out=self.dweight[rows])
            if need_dx:
                self._fold(pair, rows.start)
        self._parameter_gradients(dweight, dbias)
        if dbias is not None:
            np.matmul(self.ones, images.reshape(len(images), -1, self.geometry.f), out=self.dbias)
            np.add.reduce(self.dbias, axis=(0, 1), out=dbias)
        return self.geometry.interior(self.dpadded) if need_dx else None

    def _slabs(self) -> tuple[Array, Array, Array, Array]:
        """Two rows (2, parts, pixels, F); their even and odd columns, the larger: (2, run)."""
        if self.pair is None:
            pair, columns = self.scratch.take(4 * self.run, 2 * self.run, dtype=self.padded.dtype)
            self.pair = pair.reshape(2, self.parts, -1, self.geometry.f)
            self.by_phase = pair.reshape(2, 2, self.run)
            self.columns = columns.reshape(2, self.run)
        return self.pair, self.by_phase[:, 0], self.by_phase[:, 1], self.columns

    def _in_order(self, pixels: Array) -> Array:
        rows, columns, n = pixels.shape
        return pixels.reshape(rows, columns // 2, 2, n).swapaxes(1, 2)

    def _runs(self, images: Array) -> Array:
        """Pooled images as (OH / 2, run), a view."""
        return layout.native(images).reshape(-1, self.run)

    def _as_runs(self, images: Array) -> Array | None:
        """The same, or None if the memory of `images` forbids it."""
        return self._runs(images) if layout.native(images).flags.c_contiguous else None
