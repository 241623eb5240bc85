"""Conv2d: the layer; the arithmetic is done by an algorithm chosen for its geometry.

An algorithm is built for one geometry and one batch size, owns the workspaces and its (padded)
input array, and offers `inbox`, `load`, `forward` and `backward`; `im2col.Im2colConvolution` is the
reference that shows what each of them means.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
from numpy.typing import DTypeLike

from distnet.nn.geometry import Geometry
from distnet.nn.im2col import Im2colConvolution
from distnet.nn.initializers import constant, weight_initializer
from distnet.nn.layer import Layer
from distnet.nn.layout import Array, Shape
from distnet.nn.parameter import Parameter
from distnet.nn.random import Training


class Algorithm(Protocol):
    """How one convolution is computed for one batch size."""

    inbox: Array
    output_shape: Shape

    def load(self, weight: Array, bias: Array) -> None: ...
    def forward(self, out: Array) -> None: ...
    def backward(self, dy: Array, dweight: Array, dbias: Array, dx: Array | None) -> None: ...


class Conv2d(Layer):
    """Cross-correlation of images `(N, C, H, W)` with F filters, plus a bias for each filter.

    Weight `(F, C, KH, KW)`, output `(N, F, OH, OW)` with OH = (H + 2 pad - KH) // stride + 1 (book
    section 7.2). `kernel` is a side or (KH, KW).
    """

    kind = "conv"

    def __init__(
        self,
        filters: int,
        kernel: int | tuple[int, int],
        *,
        stride: int = 1,
        pad: int = 0,
        init: str | float = "he",
    ) -> None:
        super().__init__()
        self.filters, self.stride, self.pad, self.init = filters, stride, pad, init
        self.kernel = (kernel, kernel) if isinstance(kernel, int) else kernel
        self._algorithms: dict[int, Algorithm] = {}
        self._loaded: set[int] = set()

    def build(self, shape: Shape, dtype: DTypeLike = np.float32) -> Shape:
        super().build(shape, dtype)
        c, h, w = shape
        g = self.geometry = Geometry(c, h, w, self.filters, *self.kernel, self.stride, self.pad)
        init = weight_initializer(self.init, c * g.kh * g.kw)
        self.weight = Parameter((g.f, c, g.kh, g.kw), init)
        self.bias = Parameter((g.f,), constant(0), decays=False)
        return g.output_shape

    def parameters(self) -> Iterator[tuple[str, Parameter]]:
        yield "weight", self.weight
        yield "bias", self.bias

    def refresh(self) -> None:
        self._loaded.clear()

    def inbox(self, n: int) -> Array | None:
        return self._algorithm(n).inbox

    def forward(self, x: Array, out: Array | None = None, train: Training | None = None) -> Array:
        algorithm = self.algorithm = self._algorithm(len(x))
        if len(x) not in self._loaded:
            algorithm.load(self.weight.value, self.bias.value)
            self._loaded.add(len(x))
        if x is not algorithm.inbox:
            np.copyto(algorithm.inbox, x)
        y = self.output(algorithm.output_shape, out)
        algorithm.forward(y)
        return y

    def backward(self, dy: Array, out: Array | None = None, need_dx: bool = True) -> Array | None:
        dx = self.input_gradient(self.algorithm.inbox.shape, out) if need_dx else None
        self.algorithm.backward(dy, self.weight.grad, self.bias.grad, dx)
        return dx

    def _algorithm(self, n: int) -> Algorithm:
        if n not in self._algorithms:
            self._algorithms[n] = Im2colConvolution(self.geometry, n, self.dtype)
        return self._algorithms[n]
