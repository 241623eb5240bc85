"""The fully connected layer (the book's Affine, section 5.6) and Flatten."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import DTypeLike

from distnet.base.arrays import Array, Shape
from distnet.base.keys import MicroBatch
from distnet.nn import arguments, blocking
from distnet.nn.initializers import checked_init, constant, weight_initializer
from distnet.nn.layer import Layer
from distnet.nn.parameters import Parameter

_PRODUCTS_BYTES = 512 * 1024  # of the groups that are added up at a time: they stay in the cache


@dataclass
class _Workspace:
    """P groups of features, of which `len(products)` are multiplied at a time."""

    weight: Array  # (P, K / P, out), a view; so is the next
    weight_grad: Array
    products: Array  # (groups, N, out): what each group contributes to the output
    part: Array  # (N, out)
    x: Array  # (N, K): images as vectors
    dx: Array  # (N, K)


class Linear(Layer):
    """y = x W + b for x `(N, K)` or images `(N, C, H, W)`, W `(K, out)`, b `(out,)`.

    Images are flattened in (C, H, W) order, as in the book. The product is the sum of P small ones
    over runs of features, which BLAS computes without copies of its own.
    """

    kind = "linear"

    def __init__(self, out_features: int, *, init: str | float = "he", bias: bool = True) -> None:
        super().__init__()
        self.out_features = arguments.whole("Linear", "out_features", out_features)
        self.init = checked_init("Linear", init)
        self.has_bias = bias
        self._workspaces: dict[int, _Workspace] = {}

    def build(self, shape: Shape, dtype: DTypeLike = np.float32) -> Shape:
        super().build(shape, dtype)
        self.input_shape = shape
        self.in_features = int(np.prod(shape))
        init = weight_initializer(self.init, self.in_features)
        self.weight = Parameter((self.in_features, self.out_features), init)
        self.bias = Parameter((self.out_features,), constant(0), decays=False)
        return (self.out_features,)

    def parameters(self) -> Iterator[tuple[str, Parameter]]:
        yield "weight", self.weight
        if self.has_bias:
            yield "bias", self.bias

    def inbox(self, n: int) -> Array | None:
        """The pixels of one channel are wanted as vectors, not in the engine's memory order.

        (Images of more channels come from layers that work faster in that order.)
        """
        if len(self.input_shape) != 3 or self.input_shape[0] > 1:
            return None
        return self._workspace(n).x.reshape(n, *self.input_shape)

    def forward(self, x: Array, out: Array | None = None, at: MicroBatch | None = None) -> Array:
        ws = self._workspace(len(x))
        self.x = self._by_group(self._as_vectors(x, ws), ws)
        y = self.output((len(x), self.out_features), out)
        self._multiply(ws, y)
        return np.add(y, self.bias.value, out=y) if self.has_bias else y

    def backward(self, dy: Array, out: Array | None = None, need_dx: bool = True) -> Array | None:
        ws = self._workspace(len(dy))
        np.matmul(self.x.transpose(0, 2, 1), dy, out=ws.weight_grad)
        if self.has_bias:
            np.add.reduce(dy, axis=0, out=self.bias.grad)
        if not need_dx:
            return None
        np.matmul(dy, ws.weight.transpose(0, 2, 1), out=self._by_group(ws.dx, ws))
        if out is None and len(self.input_shape) == 1:
            return ws.dx
        dx = self.input_gradient((len(dy), *self.input_shape), out)
        np.copyto(dx, ws.dx.reshape(dx.shape))
        return dx

    def _multiply(self, ws: _Workspace, y: Array) -> None:
        """y = x W, the sum of the groups' products."""
        if len(self.x) == 1:
            np.matmul(self.x[0], ws.weight[0], out=y)
            return
        size = len(ws.products)
        for start in range(0, len(self.x), size):
            group = slice(start, start + size)
            products = ws.products[: len(self.x) - start]
            np.matmul(self.x[group], ws.weight[group], out=products)
            np.add.reduce(products, axis=0, out=ws.part if start else y)
            if start:
                np.add(y, ws.part, out=y)

    def _as_vectors(self, x: Array, ws: _Workspace) -> Array:
        """`x` as (N, K): where it lies if it lies so, else a copy."""
        if x.flags.c_contiguous:
            return x.reshape(ws.x.shape)
        np.copyto(ws.x.reshape(x.shape), x)
        return ws.x

    def _by_group(self, vectors: Array, ws: _Workspace) -> Array:
        """Vectors (N, K) as (P, N, K / P), a view."""
        return vectors.reshape(len(vectors), len(ws.weight), -1).transpose(1, 0, 2)

    def _workspace(self, n: int) -> _Workspace:
        if n not in self._workspaces:
            k, out, p = self.in_features, self.out_features, self._num_groups(n)
            at_a_time = min(p, max(1, _PRODUCTS_BYTES // (n * out * self.dtype.itemsize)))
            self._workspaces[n] = _Workspace(
                weight=self.weight.value.reshape(p, -1, out),
                weight_grad=self.weight.grad.reshape(p, -1, out),
                products=np.empty((at_a_time, n, out), self.dtype),
                part=np.empty((n, out), self.dtype),
                x=np.empty((n, k), self.dtype),
                dx=np.empty((n, k), self.dtype),
            )
        return self._workspaces[n]

    def _num_groups(self, n: int) -> int:
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

    def forward(self, x: Array, out: Array | None = None, at: MicroBatch | None = None) -> Array:
        self.shape = x.shape
        y = self.output((len(x), int(np.prod(x.shape[1:]))), out)
        np.copyto(y.reshape(x.shape), x)
        return y

    def backward(self, dy: Array, out: Array | None = None, need_dx: bool = True) -> Array | None:
        dx = self.input_gradient(self.shape, out)
        np.copyto(dx, dy.reshape(self.shape))
        return dx
