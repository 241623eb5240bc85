"""Average pooling: over windows (LeCun et al. 1998, section II.B) and over whole images."""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike

from distnet.base.arithmetic import portable
from distnet.base.arrays import Array, Shape
from distnet.base.keys import MicroBatch
from distnet.nn import arguments
from distnet.nn.conv.pooling import Pair, Pooling
from distnet.nn.layer import Layer


@portable
class AvgPool2d(Pooling):
    """The mean of each window: images `(N, C, H, W)` to `(N, C, OH, OW)`.

    Windows lie as for `MaxPool2d`. As in PyTorch, the zeros of the padding count as pixels, unless
    `count_include_pad` is False; what lies beyond the padding in `ceil_mode` never counts.
    """

    kind = "avgpool"

    def __init__(
        self,
        kernel: Pair,
        *,
        stride: Pair | None = None,
        pad: Pair = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        super().__init__(kernel, stride=stride, pad=pad, ceil_mode=ceil_mode)
        self.count_include_pad = count_include_pad

    def build(self, shape: Shape, dtype: DTypeLike = np.float32) -> Shape:
        super().build(shape, dtype)
        of_image = not self.count_include_pad
        bounds = (self.windows.bounds(axis, of_image=of_image) for axis in (0, 1))
        rows, columns = (stop - start for start, stop in bounds)
        self.num_pixels = np.outer(rows, columns).astype(self.dtype)  # (OH, OW), of each window
        return self.output_shape

    def forward(self, x: Array, out: Array | None = None, at: MicroBatch | None = None) -> Array:
        padded = self.memory.temporary(self.padded_shape(len(x)), self.dtype)
        first, *others = self.elements(x, padded, 0)
        y = self.output((len(x), *self.output_shape), out)
        np.copyto(y, first)
        for element in others:
            np.add(y, element, out=y)
        return np.divide(y, self.num_pixels, out=y)

    def backward(self, dy: Array, out: Array | None = None, need_dx: bool = True) -> Array | None:
        if not need_dx:
            return None
        share = np.divide(dy, self.num_pixels, out=self.memory.temporary(dy.shape, self.dtype))
        dpadded = self.padded_gradient(len(dy))
        for element in self.windows.elements(dpadded):
            element += share
        return self.given(self.windows.inside(dpadded), out)


@portable
class GlobalAvgPool2d(Layer):
    """The mean of each channel's pixels: images `(N, C, H, W)` to vectors `(N, C)`.

    Lin et al. 2013, "Network in network", section 3.2. Takes the place of the first fully connected
    layer, so the size of the images does not decide the number of parameters.
    """

    kind = "globalpool"

    def build(self, shape: Shape, dtype: DTypeLike = np.float32) -> Shape:
        super().build(shape, dtype)
        self.shape = arguments.image_shape("GlobalAvgPool2d", shape)
        self.num_pixels = shape[1] * shape[2]
        return shape[:1]

    def forward(self, x: Array, out: Array | None = None, at: MicroBatch | None = None) -> Array:
        y = self.output(x.shape[:2], out)
        rounds = self.arithmetic.rounds
        scratch = self.memory.temporary(x.shape, self.dtype) if rounds else None
        self.arithmetic.sum(x, axis=(2, 3), out=y, scratch=scratch)
        return np.divide(y, self.num_pixels, out=y)

    def backward(self, dy: Array, out: Array | None = None, need_dx: bool = True) -> Array | None:
        if not need_dx:
            return None
        dx = self.input_gradient((len(dy), *self.shape), out)
        return np.divide(dy[:, :, None, None], self.num_pixels, out=dx)
