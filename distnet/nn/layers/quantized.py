"""Numbers of few bits: activations as whole numbers, and what brings sums of them back."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import DTypeLike

from distnet.base.arithmetic import portable
from distnet.base.arrays import Array, Shape
from distnet.base.keys import MicroBatch
from distnet.nn import arguments
from distnet.nn.initializers import constant
from distnet.nn.layer import Layer
from distnet.nn.layers.activations import Activation
from distnet.nn.parameters import Parameter


@portable
class Quantize(Activation):
    """y = x / scale, rounded to a whole number from `low` to `high`; any shape.

    In eight bits that is 0 to 255, or -127 to 127 for numbers of both signs (Jacob et al. 2018,
    arXiv:1712.05877, eq. 1 with zero point 0). The whole numbers are held in the network's floats.
    Backward takes it for the straight line, x / scale, and for a constant where y is at an end
    (straight-through; Bengio et al. 2013, arXiv:1308.3432, section 4).
    """

    kind = "quantize"

    def __init__(self, scale: float, *, low: int = 0, high: int = 255) -> None:
        super().__init__()
        self.scale = arguments.real("Quantize", "scale", scale, "a number above 0", lambda s: s > 0)
        self.low = arguments.whole("Quantize", "low", low, minimum=-(2**23))
        self.high = arguments.whole("Quantize", "high", high, minimum=self.low + 1)

    def build(self, shape: Shape, dtype: DTypeLike = np.float32) -> Shape:
        self.factor = np.array(1 / self.scale, dtype)
        return super().build(shape, dtype)

    def function(self, x: Array, out: Array) -> Array:
        np.multiply(x, self.factor, out=out)
        np.rint(out, out=out)
        return np.clip(out, self.low, self.high, out=out)

    def gradient(self, dy: Array, out: Array) -> Array:
        inside, below = self.memory.temporaries((dy.shape, bool), (dy.shape, bool))
        np.greater(self.y, self.low, out=inside)
        inside &= np.less(self.y, self.high, out=below)
        np.multiply(dy, inside, out=out)
        return np.multiply(out, self.factor, out=out)


@portable
class Scale(Layer):
    """y = factor x for `(N, C, H, W)` or `(N, C)`, with a factor for each channel C.

    Behind a product of whole numbers it brings back the unit of what they stand for.
    """

    kind = "scale"

    def build(self, shape: Shape, dtype: DTypeLike = np.float32) -> Shape:
        self.factor = Parameter((shape[0],), constant(1), decays=False)
        self.axes = (0, 2, 3)[: len(shape)]  # of x, summed over
        return super().build(shape, dtype)

    def parameters(self) -> Iterator[tuple[str, Parameter]]:
        yield "factor", self.factor

    def forward(self, x: Array, out: Array | None = None, at: MicroBatch | None = None) -> Array:
        self.x = x
        return np.multiply(x, self._column(x.ndim), out=self.output(x.shape, out))

    def backward(self, dy: Array, out: Array | None = None, need_dx: bool = True) -> Array | None:
        product = np.multiply(dy, self.x, out=self.memory.temporary(dy.shape, self.dtype))
        self.arithmetic.sum(product, axis=self.axes, out=self.factor.grad, scratch=product)
        if not need_dx:
            return None
        return np.multiply(dy, self._column(dy.ndim), out=self.input_gradient(dy.shape, out))

    def _column(self, ndim: int) -> Array:
        """Shaped to broadcast over (N, C) or (N, C, H, W)."""
        return self.factor.value.reshape(-1, *[1] * (ndim - 2))
