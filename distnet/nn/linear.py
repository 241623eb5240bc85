"""The fully connected layer (the book's Affine, section 5.6) and Flatten."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import DTypeLike

from distnet.nn import layout
from distnet.nn.initializers import constant, weight_initializer
from distnet.nn.layer import Layer
from distnet.nn.layout import Array, Shape
from distnet.nn.parameter import Parameter
from distnet.nn.random import Training


@dataclass
class _Workspace:
    products: Array  # (P, N, out): what each position contributes to the output
    y: Array  # (N, out)
    dx: Array  # (P, N, K / P)
    dx_as_input: Array  # in the shape of the input, a view
    dy_transposed: Array  # (out, N)
    dx_transposed: Array  # (P, K / P, N)


class Linear(Layer):
    """y = x W + b for x `(N, K)` or images `(N, C, H, W)`, W `(K, out)`, b `(out,)`.

    Images are flattened in (C, H, W) order, as in the book, but never copied: an image is P = H * W
    positions of C features, position p owns the rows `W.reshape(C, P, out)[:, p]`, and the product
    is the sum of P small ones, on views. A vector, and an image of one channel, is one position of
    K features.
    """

    kind = "linear"

    def __init__(self, out_features: int, *, init: str | float = "he", bias: bool = True) -> None:
        super().__init__()
        self.out_features = out_features
        self.init = init
        self.has_bias = bias
        self._workspaces: dict[int, _Workspace] = {}

    def build(self, shape: Shape, dtype: DTypeLike = np.float32) -> Shape:
        super().build(shape, dtype)
        self.input_shape = shape
        fan_in = int(np.prod(shape))
        self.positions = fan_in // shape[0] if shape[0] > 1 else 1
        self.features = fan_in // self.positions  # of one position
        self.weight = Parameter((fan_in, self.out_features), weight_initializer(self.init, fan_in))
        self.bias = Parameter((self.out_features,), constant(0), decays=False)
        return (self.out_features,)

    def parameters(self) -> Iterator[tuple[str, Parameter]]:
        yield "weight", self.weight
        if self.has_bias:
            yield "bias", self.bias

    def forward(self, x: Array, out: Array | None = None, train: Training | None = None) -> Array:
        ws = self._workspace(len(x))
        self.x = self._by_position(x)
        y = ws.y if out is None else out
        np.matmul(self.x, self._rows(self.weight.value), out=ws.products)
        np.add.reduce(ws.products, axis=0, out=y)
        return np.add(y, self.bias.value, out=y) if self.has_bias else y

    def backward(self, dy: Array, out: Array | None = None, need_dx: bool = True) -> Array | None:
        np.matmul(self.x.transpose(0, 2, 1), dy, out=self._rows(self.weight.grad))
        if self.has_bias:
            np.add.reduce(dy, axis=0, out=self.bias.grad)
        if not need_dx:
            return None
        ws = self._workspace(len(dy))
        self._input_gradient(dy, ws)
        if out is None:
            return ws.dx_as_input
        np.copyto(out, ws.dx_as_input)
        return out

    def _input_gradient(self, dy: Array, ws: _Workspace) -> None:
        """dx = dy W^T for each position.

        Over many positions as the transpose of W dy^T: BLAS is slow where the factor that it has to
        transpose changes from one small product to the next.
        """
        weight = self._rows(self.weight.value)
        if self.positions == 1:
            np.matmul(dy, weight.transpose(0, 2, 1), out=ws.dx)
            return
        np.copyto(ws.dy_transposed, dy.T)
        np.matmul(weight, ws.dy_transposed, out=ws.dx_transposed)
        np.copyto(ws.dx, ws.dx_transposed.transpose(0, 2, 1))

    def _by_position(self, x: Array) -> Array:
        """`x` as (P, N, K / P), a view if the engine allocated it."""
        if self.positions == 1:
            return x.reshape(1, len(x), self.features)
        return layout.native(x).reshape(self.positions, len(x), self.features)

    def _as_input(self, dx: Array) -> Array:
        """(P, N, K / P) in the shape of the input, a view."""
        if self.positions == 1:
            return dx[0].reshape(-1, *self.input_shape)
        c, h, w = self.input_shape
        return layout.logical(dx.reshape(h, w, -1, c))

    def _rows(self, weight: Array) -> Array:
        """The weight or its gradient as (P, K / P, out), a view."""
        return weight.reshape(self.features, self.positions, -1).transpose(1, 0, 2)

    def _workspace(self, n: int) -> _Workspace:
        if n not in self._workspaces:
            p, c, k = self.positions, self.features, self.out_features
            shapes = ((p, n, k), (n, k), (p, n, c), (k, n), (p, c, n) if p > 1 else (0,))
            products, y, dx, *transposed = (np.empty(s, self.dtype) for s in shapes)
            self._workspaces[n] = _Workspace(products, y, dx, self._as_input(dx), *transposed)
        return self._workspaces[n]


class Flatten(Layer):
    """Images `(N, C, H, W)` to vectors `(N, C * H * W)` in that order."""

    kind = "flatten"

    def build(self, shape: Shape, dtype: DTypeLike = np.float32) -> Shape:
        super().build(shape, dtype)
        return (int(np.prod(shape)),)

    def forward(self, x: Array, out: Array | None = None, train: Training | None = None) -> Array:
        self.shape = x.shape
        y = self.output((len(x), int(np.prod(x.shape[1:]))), out)
        np.copyto(y.reshape(x.shape), x)
        return y

    def backward(self, dy: Array, out: Array | None = None, need_dx: bool = True) -> Array | None:
        dx = self.input_gradient(self.shape, out)
        np.copyto(dx, dy.reshape(self.shape))
        return dx
