"""Elementwise activation functions (book section 3.2 and 5.5), any shape, in place if asked."""

from __future__ import annotations

import numpy as np

from distnet.base.arrays import Array, Shape
from distnet.base.keys import MicroBatch
from distnet.nn import arguments, layout
from distnet.nn.layer import Layer


class Activation(Layer):
    """An elementwise function whose derivative is computed from its output y."""

    in_place = True
    needs_output = True

    def __init__(self) -> None:
        super().__init__()
        self._temporaries: dict[Shape, Array] = {}

    def forward(self, x: Array, out: Array | None = None, at: MicroBatch | None = None) -> Array:
        self.y = self.function(x, self.output(x.shape, out))
        return self.y

    def backward(self, dy: Array, out: Array | None = None, need_dx: bool = True) -> Array | None:
        return self.gradient(dy, self.input_gradient(dy.shape, out)) if need_dx else None

    def function(self, x: Array, out: Array) -> Array:
        raise NotImplementedError

    def gradient(self, dy: Array, out: Array) -> Array:
        raise NotImplementedError

    def _temporary(self, shape: Shape) -> Array:
        return self._own(self._temporaries, shape)


class ReLU(Activation):
    """y = max(x, 0). At x = 0 the derivative is 0."""

    kind = "relu"

    def __init__(self) -> None:
        super().__init__()
        self._zeros: dict[Shape, Array] = {}
        self._masks: dict[Shape, Array] = {}

    def function(self, x: Array, out: Array) -> Array:
        # Against an array of zeros np.maximum runs on SIMD, 3.5 times as fast as against a scalar.
        row = x.shape if x.ndim != 4 else (*x.shape[:2], 1, x.shape[3])
        if row not in self._zeros:
            self._zeros[row] = layout.zeros(row, self.dtype)
        return np.maximum(x, self._zeros[row], out=out)

    def gradient(self, dy: Array, out: Array) -> Array:
        if dy.shape not in self._masks:
            self._masks[dy.shape] = layout.empty(dy.shape, bool)
        active = np.greater(self.y, 0, out=self._masks[dy.shape])
        return np.multiply(dy, active, out=out)


class LeakyReLU(Layer):
    """y = x where x > 0, else `slope` x (Maas et al. 2013). At x = 0 the derivative is `slope`."""

    kind = "leakyrelu"
    in_place = True

    def __init__(self, slope: float = 0.01) -> None:
        super().__init__()
        self.slope = arguments.real("LeakyReLU", "slope", slope)
        self._slopes: dict[Shape, Array] = {}
        self._masks: dict[Shape, Array] = {}

    def forward(self, x: Array, out: Array | None = None, at: MicroBatch | None = None) -> Array:
        if x.shape not in self._masks:
            self._masks[x.shape] = layout.empty(x.shape, bool)
        active = np.greater(x, 0, out=self._masks[x.shape])
        self.slopes = self._own(self._slopes, x.shape)
        np.copyto(self.slopes, self.slope)
        np.copyto(self.slopes, 1, where=active)
        return np.multiply(x, self.slopes, out=self.output(x.shape, out))

    def backward(self, dy: Array, out: Array | None = None, need_dx: bool = True) -> Array | None:
        if not need_dx:
            return None
        return np.multiply(dy, self.slopes, out=self.input_gradient(dy.shape, out))


class Sigmoid(Activation):
    """y = 1 / (1 + exp(-x)), with all its digits as far as exp(-x) is finite, and 0 beyond."""

    kind = "sigmoid"

    def function(self, x: Array, out: Array) -> Array:
        y = np.negative(x, out=out)
        with np.errstate(over="ignore", under="ignore"):  # where the limits 0 and 1 are right
            np.exp(y, out=y)
        np.add(y, 1, out=y)
        return np.reciprocal(y, out=y)

    def gradient(self, dy: Array, out: Array) -> Array:
        slope = np.subtract(1, self.y, out=self._temporary(dy.shape))
        np.multiply(slope, self.y, out=slope)
        return np.multiply(dy, slope, out=out)


class Tanh(Activation):
    """y = tanh(x)."""

    kind = "tanh"

    def function(self, x: Array, out: Array) -> Array:
        return np.tanh(x, out=out)

    def gradient(self, dy: Array, out: Array) -> Array:
        slope = np.multiply(self.y, self.y, out=self._temporary(dy.shape))
        np.subtract(1, slope, out=slope)
        return np.multiply(dy, slope, out=out)
