"""The fully connected layer (the book's Affine, section 5.6) and Flatten."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import DTypeLike

from distnet.nn import blocking, layout
from distnet.nn.initializers import constant, weight_initializer
from distnet.nn.layer import Layer
from distnet.nn.layout import Array, Shape
from distnet.nn.parameter import Parameter
from distnet.nn.random import Training

_PRODUCTS_BYTES = 512 * 1024  # of the groups that are added up at a time: they stay in the cache


@dataclass
class _Workspace:
    """P groups of features, of which `len(products)` are multiplied at a time."""

    weight: Array  # (P, K / P, out), a view; so is the next
    weight_grad: Array
    products: Array  # (groups, N, out): what each group contributes to the output
    part: Array  # (N, out)
    y: Array  # (N, out)
    dx: Array  # (P, N, K / P)
    dx_as_input: Array  # in the shape of the input, a view
    dy_transposed: Array  # (out, N)
    dx_transposed: Array  # (P, K / P, N)


class Linear(Layer):
    """y = x W + b for x `(N, K)` or images `(N, C, H, W)`, W `(K, out)`, b `(out,)`.

    The product is the sum of P small ones, which BLAS computes without copies, on views. Images are
    flattened in (C, H, W) order, as in the book, but never copied: each of the H * W positions is a
    group of C features, and group p owns the rows `W.reshape(C, P, out)[:, p]`. A vector, or an
    image of one channel, is cut into runs of features.
    """

    kind = "linear"

    def __init__(self, out_features: int, *, init: str | float = "he", bias: bool = True) -> None:
        super().__init__()
        self.out_features = out_features
        self.init = init
        self.has_bias = bias
        self._workspaces: dict[int, _Workspace] = {}
        self._inboxes: dict[int, Array] = {}

    def build(self, shape: Shape, dtype: DTypeLike = np.float32) -> Shape:
        super().build(shape, dtype)
        self.input_shape = shape
        self.in_features = int(np.prod(shape))
        self.positions = self.in_features // shape[0] if shape[0] > 1 else 1
        init = weight_initializer(self.init, self.in_features)
        self.weight = Parameter((self.in_features, self.out_features), init)
        self.bias = Parameter((self.out_features,), constant(0), decays=False)
        return (self.out_features,)

    def parameters(self) -> Iterator[tuple[str, Parameter]]:
        yield "weight", self.weight
        if self.has_bias:
            yield "bias", self.bias

    def inbox(self, n: int) -> Array | None:
        """Images of one channel are wanted as vectors, not in the engine's memory order."""
        if len(self.input_shape) != 3 or self.positions > 1:
            return None
        if n not in self._inboxes:
            self._inboxes[n] = np.empty((n, *self.input_shape), self.dtype)
        return self._inboxes[n]

    def forward(self, x: Array, out: Array | None = None, train: Training | None = None) -> Array:
        ws = self._workspace(len(x))
        self.x = self._by_group(x, len(ws.weight))
        y, size = ws.y if out is None else out, len(ws.products)
        for start in range(0, len(self.x), size):
            group = slice(start, start + size)
            products = np.matmul(
                self.x[group], ws.weight[group], out=ws.products[: len(self.x) - start]
            )
            np.add.reduce(products, axis=0, out=ws.part if start else y)
            if start:
                np.add(y, ws.part, out=y)
        return np.add(y, self.bias.value, out=y) if self.has_bias else y

    def backward(self, dy: Array, out: Array | None = None, need_dx: bool = True) -> Array | None:
        ws = self._workspace(len(dy))
        np.matmul(self.x.transpose(0, 2, 1), dy, out=ws.weight_grad)
        if self.has_bias:
            np.add.reduce(dy, axis=0, out=self.bias.grad)
        if not need_dx:
            return None
        self._input_gradient(dy, ws)
        if out is None:
            return ws.dx_as_input
        np.copyto(out, ws.dx_as_input)
        return out

    def _input_gradient(self, dy: Array, ws: _Workspace) -> None:
        """dx = dy W^T for each group.

        For positions of images as the transpose of W dy^T: BLAS is slow where the factor that it
        has to transpose changes from one small product to the next.
        """
        if self.positions == 1:
            np.matmul(dy, ws.weight.transpose(0, 2, 1), out=ws.dx)
            return
        np.copyto(ws.dy_transposed, dy.T)
        np.matmul(ws.weight, ws.dy_transposed, out=ws.dx_transposed)
        np.copyto(ws.dx, ws.dx_transposed.transpose(0, 2, 1))

    def _by_group(self, x: Array, num_groups: int) -> Array:
        """`x` as (P, N, K / P), a view if the engine allocated it."""
        if self.positions == 1:
            return x.reshape(len(x), num_groups, -1).transpose(1, 0, 2)
        return layout.native(x).reshape(num_groups, len(x), -1)

    def _rows(self, weight: Array, num_groups: int) -> Array:
        """The weight or its gradient as (P, K / P, out), a view."""
        if self.positions == 1:
            return weight.reshape(num_groups, -1, self.out_features)
        return weight.reshape(-1, num_groups, self.out_features).transpose(1, 0, 2)

    def _workspace(self, n: int) -> _Workspace:
        if n not in self._workspaces:
            self._workspaces[n] = self._make_workspace(n)
        return self._workspaces[n]

    def _make_workspace(self, n: int) -> _Workspace:
        k, out, p = self.in_features, self.out_features, self._num_groups(n)
        shape = (n, *self.input_shape)
        is_row = self.positions == 1
        dx = np.empty(shape, self.dtype) if is_row else layout.empty(shape, self.dtype)
        at_a_time = min(p, max(1, _PRODUCTS_BYTES // (n * out * self.dtype.itemsize)))
        return _Workspace(
            weight=self._rows(self.weight.value, p),
            weight_grad=self._rows(self.weight.grad, p),
            products=np.empty((at_a_time, n, out), self.dtype),
            part=np.empty((n, out), self.dtype),
            y=np.empty((n, out), self.dtype),
            dx=self._by_group(dx, p),
            dx_as_input=dx,
            dy_transposed=np.empty((out, n), self.dtype),
            dx_transposed=np.empty(0 if is_row else (p, k // p, n), self.dtype),
        )

    def _num_groups(self, n: int) -> int:
        if self.positions > 1:
            return self.positions
        longest = blocking.SMALL_PRODUCT // (n * self.out_features)
        parts = blocking.equal_parts(self.in_features, longest)
        few = 2 * -(-self.in_features // max(1, longest))
        return parts if parts <= few else 1  # a prime number of features stays whole


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
