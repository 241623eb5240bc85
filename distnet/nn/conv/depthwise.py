"""Convolution of each channel by itself (Howard et al. 2017, arXiv:1704.04861, section 3.1).

There is nothing to add up over channels, so that a product of matrices would be one of vectors.
Pixels are multiplied by the filters element by element instead: in the engine's memory order a row
of pixels, seen from one element of the kernel, is a view of runs of N * C numbers.

Letters: images padded to HP x WP, output OH x OW, N images, C channels, kernel KH x KW.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import DTypeLike

from distnet.base.arrays import Array
from distnet.nn import layout
from distnet.nn.conv.algorithm import Algorithm
from distnet.nn.conv.geometry import Geometry
from distnet.nn.memory import Memory


class DepthwiseConvolution(Algorithm):
    """Row by row of the output, one element of the kernel after the other."""

    expects = "as many groups, more than 1, as channels and filters"

    @classmethod
    def suits(cls, g: Geometry) -> bool:
        """A filter for each channel."""
        return 1 < g.groups == g.c == g.f

    def __init__(self, geometry: Geometry, n: int, dtype: DTypeLike, memory: Memory) -> None:
        super().__init__(geometry, n, dtype, memory)
        g = geometry
        self.padded = layout.zeros((n, g.c, *g.padded_size), dtype)
        self.inbox = g.interior(self.padded)
        self.weight = np.empty((*g.kernel, n, g.c), dtype)  # repeated for each image
        self.bias = np.zeros((n, g.c), dtype)
        self.ones = np.ones((1, g.ow * n), dtype)

    def load(self, weight: Array, bias: Array | None) -> None:
        """Takes the parameters."""
        in_order = weight[:, 0].transpose(1, 2, 0)  # (KH, KW, C)
        np.copyto(self.weight, in_order[:, :, None])
        if bias is not None:
            np.copyto(self.bias, bias)

    def forward(self, x: Array, out: Array, keep: bool) -> None:
        """y[u] = bias + sum over the elements of pixels times the filters' element."""
        self.receive(x)
        images = layout.native(self.padded)
        part = self._row()
        for u, y in enumerate(layout.native(out)):
            y[...] = self.bias
            for element, pixels in self._elements(u):
                np.multiply(images[pixels], self.weight[element], out=part)
                np.add(y, part, out=y)

    def backward(
        self, dy: Array, dweight: Array, dbias: Array | None, need_dx: bool
    ) -> Array | None:
        """The products of pixels and gradients added up; and those of gradients and filters."""
        g, images, part = self.geometry, layout.native(self.padded), self._row()
        of_row = part.reshape(-1, g.c)  # (OW * N, C)
        total = np.zeros((*g.kernel, 1, g.c), self.dtype)
        dpadded = self.memory.gradient(self.padded.shape, self.dtype) if need_dx else None
        if dpadded is not None:
            dpadded[...] = 0
        for u, gradient in enumerate(layout.native(dy)):
            for element, pixels in self._elements(u):
                np.multiply(images[pixels], gradient, out=part)
                total[element] += np.matmul(self.ones, of_row)
                if dpadded is not None:
                    np.multiply(gradient, self.weight[element], out=part)
                    dx = layout.native(dpadded)[pixels]
                    np.add(dx, part, out=dx)
        np.copyto(dweight[:, 0], total[:, :, 0].transpose(2, 0, 1))
        if dbias is not None:
            np.add.reduce(dy, axis=(0, 2, 3), out=dbias)
        return None if dpadded is None else g.interior(dpadded)

    def _row(self) -> Array:
        """Scratch memory for a row of output pixels, (OW, N, C)."""
        g = self.geometry
        (row,) = self.memory.scratch.take(g.ow * self.n * g.c, dtype=self.dtype)
        return row.reshape(g.ow, self.n, g.c)

    def _elements(self, u: int) -> Iterator[tuple[tuple[int, int], tuple[int, slice]]]:
        """Each element of the kernel, and which padded pixels it meets in row u of the output."""
        g = self.geometry
        (sh, sw), (dh, dw) = g.stride, g.dilation
        for i, j in np.ndindex(*g.kernel):
            yield (i, j), (u * sh + i * dh, slice(j * dw, j * dw + sw * g.ow, sw))
