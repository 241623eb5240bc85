"""Elementwise activation functions (book section 3.2 and 5.5), any shape, in place if asked."""

from __future__ import annotations

import numpy as np

from distnet.base.arithmetic import FLOAT, Arithmetic, portable
from distnet.base.arrays import Array
from distnet.base.keys import MicroBatch
from distnet.nn import arguments
from distnet.nn.layer import Layer


class Activation(Layer):
    """An elementwise function whose derivative is computed from its output y."""

    in_place = True
    needs_output = True

    def forward(self, x: Array, out: Array | None = None, at: MicroBatch | None = None) -> Array:
        self.y = self.function(x, self.output(x.shape, out))
        return self.y

    def backward(self, dy: Array, out: Array | None = None, need_dx: bool = True) -> Array | None:
        return self.gradient(dy, self.input_gradient(dy.shape, out)) if need_dx else None

    def function(self, x: Array, out: Array) -> Array:
        raise NotImplementedError

    def gradient(self, dy: Array, out: Array) -> Array:
        raise NotImplementedError


@portable
class ReLU(Activation):
    """y = max(x, 0). At x = 0 the derivative is 0."""

    kind = "relu"

    def function(self, x: Array, out: Array) -> Array:
        # Against an array of zeros np.maximum runs on SIMD, 3.5 times as fast as against a scalar.
        row = x.shape if x.ndim != 4 else (*x.shape[:2], 1, x.shape[3])
        zeros = self.memory.array("zeros", row, self.dtype, fill=0)
        return np.maximum(x, zeros, out=out)

    def gradient(self, dy: Array, out: Array) -> Array:
        active = np.greater(self.y, 0, out=self.memory.temporary(dy.shape, bool))
        return np.multiply(dy, active, out=out)


@portable
class LeakyReLU(Layer):
    """y = x where x > 0, else `slope` x (Maas et al. 2013). At x = 0 the derivative is `slope`."""

    kind = "leakyrelu"
    in_place = True

    def __init__(self, slope: float = 0.01) -> None:
        super().__init__()
        self.slope = arguments.real("LeakyReLU", "slope", slope)

    def forward(self, x: Array, out: Array | None = None, at: MicroBatch | None = None) -> Array:
        active = np.greater(x, 0, out=self.memory.temporary(x.shape, bool))
        self.slopes = self.memory.array("slopes", x.shape, self.dtype)
        np.copyto(self.slopes, self.slope)
        np.copyto(self.slopes, 1, where=active)
        return np.multiply(x, self.slopes, out=self.output(x.shape, out))

    def backward(self, dy: Array, out: Array | None = None, need_dx: bool = True) -> Array | None:
        if not need_dx:
            return None
        return np.multiply(dy, self.slopes, out=self.input_gradient(dy.shape, out))


@portable
class Sigmoid(Activation):
    """y = 1 / (1 + exp(-x)), with all its digits as far as exp(-x) is finite, and 0 beyond."""

    kind = "sigmoid"

    def function(self, x: Array, out: Array) -> Array:
        return sigmoid(x, out, self.arithmetic)

    def gradient(self, dy: Array, out: Array) -> Array:
        slope = np.subtract(1, self.y, out=self.memory.temporary(dy.shape, self.dtype))
        np.multiply(slope, self.y, out=slope)
        return np.multiply(dy, slope, out=out)


def sigmoid(x: Array, out: Array, arithmetic: Arithmetic = FLOAT) -> Array:
    """1 / (1 + exp(-x)) into `out`, which may be `x`."""
    y = np.negative(x, out=out)
    with np.errstate(over="ignore", under="ignore"):  # where the limits 0 and 1 are right
        arithmetic.exp(y, out=y)
    np.add(y, 1, out=y)
    return np.divide(1, y, out=y)


@portable
class Tanh(Activation):
    """y = tanh(x)."""

    kind = "tanh"

    def function(self, x: Array, out: Array) -> Array:
        return self.arithmetic.tanh(x, out=out)

    def gradient(self, dy: Array, out: Array) -> Array:
        slope = np.multiply(self.y, self.y, out=self.memory.temporary(dy.shape, self.dtype))
        np.subtract(1, slope, out=slope)
        return np.multiply(dy, slope, out=out)
