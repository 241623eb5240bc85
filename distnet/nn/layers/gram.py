"""Which features occur together, wherever in a picture they do: the Gram matrix."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import DTypeLike

from distnet.base.arithmetic import portable
from distnet.base.arrays import Array, Shape
from distnet.base.keys import MicroBatch
from distnet.nn import arguments, layout
from distnet.nn.layer import Layer


@portable
class GramMatrix(Layer):
    """G = F Fᵀ / (H W), F being an image as `(C, H W)`: `(N, C, H, W)` to vectors `(N, C * C)`.

    G, row by row, holds the mean products of any two channels over all pixels, so it says nothing
    of where things are (Gatys et al. 2015, arXiv:1505.07376, eq. 2; the division makes images of
    different sizes comparable). With S = dG + dGᵀ the gradient is dF = S F / (H W).
    """

    kind = "gram"

    def build(self, shape: Shape, dtype: DTypeLike = np.float32) -> Shape:
        super().build(shape, dtype)
        self.shape = arguments.image_shape("GramMatrix", shape)
        self.num_pixels = math.prod(shape[1:])
        self.arithmetic.check_terms("GramMatrix", max(self.num_pixels, shape[0]))
        return (shape[0] ** 2,)

    @property
    def multiply_adds(self) -> int:
        return self.shape[0] ** 2 * self.num_pixels

    def forward(self, x: Array, out: Array | None = None, at: MicroBatch | None = None) -> Array:
        self.pixels = self._pixels(self.operand(x, kept_as="x"))  # (N, H W, C): Fᵀ of each image
        y = self.output((len(x), self.shape[0] ** 2), out)
        np.matmul(self.pixels.transpose(0, 2, 1), self.pixels, out=self._matrices(y))
        return np.divide(y, self.num_pixels, out=y)

    def backward(self, dy: Array, out: Array | None = None, need_dx: bool = True) -> Array | None:
        if not need_dx:
            return None
        dgram = self._matrices(dy)
        both = self.memory.temporary(dgram.shape, self.dtype)  # S / (H W), (N, C, C)
        np.add(dgram, dgram.transpose(0, 2, 1), out=both)
        np.divide(both, self.num_pixels, out=both)
        both = self.operand(both)
        dx = self.input_gradient((len(dy), *self.shape), out)
        if layout.native(dx).flags.c_contiguous:
            np.matmul(self.pixels, both, out=self._pixels(dx))
        else:
            np.copyto(dx, np.matmul(self.pixels, both).transpose(0, 2, 1).reshape(dx.shape))
        return dx

    def _pixels(self, images: Array) -> Array:
        """Images `(N, C, H, W)` as `(N, H W, C)`: a view, if the engine has allocated them."""
        n, c, _, _ = images.shape
        return layout.native(images).reshape(self.num_pixels, n, c).transpose(1, 0, 2)

    def _matrices(self, vectors: Array) -> Array:
        """Vectors `(N, C * C)` as `(N, C, C)`."""
        c = self.shape[0]
        return vectors.reshape(-1, c, c)
