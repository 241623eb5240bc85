"""Max unpooling: values go back to where the maxima of a max pooling were, the rest is zero."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import DTypeLike

from distnet.base.arithmetic import portable
from distnet.base.arrays import Array, Shape, format_shape
from distnet.base.keys import MicroBatch
from distnet.nn.conv.pooling import MaxPool2d
from distnet.nn.layer import Layer


@portable
class MaxUnpool2d(Layer):
    """Undoes a `MaxPool2d` in front of it: images `(N, C, OH, OW)` to that one's `(N, C, H, W)`.

    Each value goes to the pixel that was the maximum of its window ("switches": Zeiler et al. 2011;
    SegNet: Badrinarayanan et al. 2015, arXiv:1511.00561, section 3). A pooling is a selection S of
    pixels, y = S x; this is S^T. So where windows overlap, a pixel that was the maximum of several
    gets the sum (PyTorch keeps one of the values, without saying which).

    In a list of layers, poolings and unpoolings match as brackets do: the first `MaxUnpool2d`
    undoes the last `MaxPool2d`, the second the one before. Poolings that nobody undoes may be left
    over. Nothing else says which belong together, so that it is the same in a copy and in a file.
    """

    kind = "unpool"
    pool: MaxPool2d | None = None  # the one that it undoes

    def join(self, before: Sequence[Layer]) -> None:
        self.pool, undone = None, 0
        for layer in reversed(before):
            if isinstance(layer, MaxUnpool2d):
                undone += 1
            elif isinstance(layer, MaxPool2d) and undone:
                undone -= 1
            elif isinstance(layer, MaxPool2d):
                self.pool, layer.is_undone = layer, True
                return

    def build(self, shape: Shape, dtype: DTypeLike = np.float32) -> Shape:
        super().build(shape, dtype)
        if self.pool is None:
            raise ValueError(
                "MaxUnpool2d: found no MaxPool2d in front of it in the same list of layers that is "
                "not undone already, expected one for each MaxUnpool2d"
            )
        if shape != self.pool.output_shape:
            raise ValueError(
                f"MaxUnpool2d: found images of {format_shape(shape)}, expected what its MaxPool2d "
                f"has made, {format_shape(self.pool.output_shape)}"
            )
        return self.pool.shape

    def forward(self, x: Array, out: Array | None = None, at: MicroBatch | None = None) -> Array:
        assert self.pool is not None
        y = self.output((len(x), *self.pool.shape), out)
        self.pool.give_to_maxima(x, y)
        return y

    def backward(self, dy: Array, out: Array | None = None, need_dx: bool = True) -> Array | None:
        if not need_dx:
            return None
        assert self.pool is not None
        dx = self.input_gradient((len(dy), *self.pool.output_shape), out)
        self.pool.take_at_maxima(dy, dx)
        return dx
