"""Weights and activations of one bit, +1 or -1, and how they are trained nevertheless.

What is trained are floats behind the signs. The sign has no gradient to speak of, so backward takes
it for the identity (straight-through; Hinton 2012, Bengio et al. 2013, arXiv:1308.3432):

* BinaryConnect (Courbariaux et al. 2015, arXiv:1511.00363, algorithm 1): layers compute with the
  signs of their weights, the gradient with respect to the sign moves the float behind it, and that
  stays between -1 and 1 from the first step on, since further out it would change nothing.
* BinaryNet (Courbariaux et al. 2016, arXiv:1602.02830, algorithm 1): activations are signs too, and
  their gradient passes where the activation was between -1 and 1.

A batch normalisation in front of each sign keeps numbers where that is so.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike

from distnet.base.arithmetic import portable
from distnet.base.arrays import Array, Shape
from distnet.base.keys import MicroBatch
from distnet.nn.conv.conv2d import Conv2d
from distnet.nn.layer import Layer
from distnet.nn.layers.linear import Linear
from distnet.nn.parameters import Parameter

BOUND = 1.0  # of the floats behind signs


def signs(x: Array, out: Array) -> Array:
    """+1 where x >= 0, else -1; NaN stays NaN."""
    np.sign(x, out=out)
    np.copyto(out, 1, where=np.equal(out, 0))
    return out


@portable
class Sign(Layer):
    """y = +1 where x >= 0, else -1; any shape. Backward: dx = dy where -1 <= x <= 1, else 0."""

    kind = "sign"
    in_place = True

    def forward(self, x: Array, out: Array | None = None, at: MicroBatch | None = None) -> Array:
        self.inside = self.memory.array("inside", x.shape, bool)
        size = self.memory.temporary(x.shape, self.dtype)
        np.less_equal(np.abs(x, out=size), 1, out=self.inside)
        return signs(x, self.output(x.shape, out))

    def backward(self, dy: Array, out: Array | None = None, need_dx: bool = True) -> Array | None:
        if not need_dx:
            return None
        return np.multiply(dy, self.inside, out=self.input_gradient(dy.shape, out))


class _BinaryWeight(Layer):
    """What layers share that compute with the signs of a weight."""

    weight: Parameter

    def build(self, shape: Shape, dtype: DTypeLike = np.float32) -> Shape:
        self._signs: Array | None = None
        output_shape = super().build(shape, dtype)
        self.weight.bound = BOUND
        return output_shape

    def refresh(self) -> None:
        super().refresh()
        self._signs = None
        if not self.weight.is_away:  # a device does it there
            bound = self.weight.bound
            np.clip(self.weight.value, -bound, bound, out=self.weight.value)

    def computing_weight(self) -> Array:
        if self._signs is None:
            place = self.memory.constant("signs", self.weight.shape, self.dtype)
            self._signs = signs(self.weight.value, place)
        return self._signs


@portable
class BinaryConv2d(_BinaryWeight, Conv2d):
    """A `Conv2d` that computes with the signs of its weights; the bias, if any, is a float."""


@portable
class BinaryLinear(_BinaryWeight, Linear):
    """A `Linear` that computes with the signs of its weights; the bias, if any, is a float."""
