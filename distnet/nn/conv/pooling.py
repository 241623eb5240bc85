"""Max pooling (book section 7.3).

Of equal elements in a window the first in row order receives the gradient.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike

from distnet.base.arrays import Array, Shape
from distnet.base.keys import MicroBatch
from distnet.nn import layout
from distnet.nn.conv.geometry import output_size
from distnet.nn.layer import Layer


class MaxPool2d(Layer):
    """The maximum of each window: images `(N, C, H, W)` to `(N, C, OH, OW)`.

    Windows of `kernel` x `kernel` pixels, `stride` (default: `kernel`) apart. Padding counts as
    minus infinity, so it never wins.
    """

    kind = "pool"

    def __init__(self, kernel: int, *, stride: int | None = None, pad: int = 0) -> None:
        super().__init__()
        self.kernel, self.stride, self.pad = kernel, stride or kernel, pad
        if pad >= kernel:
            raise ValueError(f"MaxPool2d: found pad {pad}, expected less than the kernel {kernel}")
        self._methods: dict[int, _Windows | _Pairs] = {}

    @property
    def halves(self) -> bool:
        """Whether the windows are 2 x 2 and tile the images, but perhaps for an odd last line."""
        return (self.kernel, self.stride, self.pad) == (2, 2, 0)

    def build(self, shape: Shape, dtype: DTypeLike = np.float32) -> Shape:
        super().build(shape, dtype)
        c, h, w = self.shape = shape
        oh = output_size(h, self.kernel, self.stride, self.pad)
        ow = output_size(w, self.kernel, self.stride, self.pad)
        self.output_shape = (c, oh, ow)
        return self.output_shape

    def forward(self, x: Array, out: Array | None = None, at: MicroBatch | None = None) -> Array:
        y = self.output((len(x), *self.output_shape), out)
        self._method(len(x)).forward(x, y)
        return y

    def backward(self, dy: Array, out: Array | None = None, need_dx: bool = True) -> Array | None:
        if not need_dx:
            return None
        dx = self.input_gradient((len(dy), *self.shape), out)
        self._method(len(dy)).backward(dy, dx)
        return dx

    def _method(self, n: int) -> _Windows | _Pairs:
        if n not in self._methods:
            _, h, w = self.shape
            pairs = self.halves and (h % 2, w % 2) == (0, 0)
            self._methods[n] = _Pairs(self, n) if pairs else _Windows(self, n)
        return self._methods[n]


class _Windows:
    """Any kernel, stride and padding: one element of all windows at a time."""

    def __init__(self, layer: MaxPool2d, n: int) -> None:
        c, h, w = layer.shape
        k, p, s = layer.kernel, layer.pad, layer.stride
        _, oh, ow = layer.output_shape
        self.padded = layout.empty((n, c, h + 2 * p, w + 2 * p), layer.dtype)
        self.padded[...] = -np.inf
        self.dpadded = layout.empty(self.padded.shape, layer.dtype)
        self.inside = np.s_[:, :, p : p + h, p : p + w]
        self.places = [
            np.s_[:, :, i : i + s * oh : s, j : j + s * ow : s] for i in range(k) for j in range(k)
        ]
        self.chosen = layout.empty((n, *layer.output_shape), np.int16)
        self.mask = layout.empty(self.chosen.shape, bool)
        self.routed = layout.empty(self.chosen.shape, layer.dtype)

    def forward(self, x: Array, y: Array) -> None:
        np.copyto(self.padded[self.inside], x)
        np.copyto(y, self.padded[self.places[0]])
        self.chosen[...] = 0
        for k, place in enumerate(self.places[1:], start=1):
            np.greater(self.padded[place], y, out=self.mask)
            np.copyto(self.chosen, k, where=self.mask)
            np.maximum(self.padded[place], y, out=y)

    def backward(self, dy: Array, dx: Array) -> None:
        self.dpadded[...] = 0
        for k, place in enumerate(self.places):
            np.equal(self.chosen, k, out=self.mask)
            np.multiply(dy, self.mask, out=self.routed)
            self.dpadded[place] += self.routed
        np.copyto(dx, self.dpadded[self.inside])


class _Pairs:
    """2 x 2 windows that tile the image: the larger of two columns, then of two rows.

    The gradient goes back the same way: to the second of a pair where that was strictly larger,
    and what is left of it, all or nothing, to the first.
    """

    def __init__(self, layer: MaxPool2d, n: int) -> None:
        c, h, w = layer.shape
        self.columns = layout.empty((n, c, h, w // 2), layer.dtype)
        self.second_column = layout.empty(self.columns.shape, bool)
        self.second_row = layout.empty((n, c, h // 2, w // 2), bool)

    def forward(self, x: Array, y: Array) -> None:
        left, right = x[..., 0::2], x[..., 1::2]
        take_larger(left, right, self.columns, self.second_column)
        upper, lower = self.columns[:, :, 0::2], self.columns[:, :, 1::2]
        take_larger(upper, lower, y, self.second_row)

    def backward(self, dy: Array, dx: Array) -> None:
        upper, lower = self.columns[:, :, 0::2], self.columns[:, :, 1::2]
        give_to_larger(dy, self.second_row, upper, lower)
        left, right = dx[..., 0::2], dx[..., 1::2]
        give_to_larger(self.columns, self.second_column, left, right)


def take_larger(first: Array, second: Array, out: Array, second_wins: Array) -> None:
    """The larger of each pair, and whether it is the second, strictly."""
    np.greater(second, first, out=second_wins)
    np.maximum(first, second, out=out)


def give_to_larger(gradient: Array, second_wins: Array, first: Array, second: Array) -> None:
    """The way back of `take_larger`: all of the gradient to one of the pair, zero to the other."""
    np.multiply(gradient, second_wins, out=second)
    np.subtract(gradient, second, out=first)
