"""Conv2d: the layer; the arithmetic is done by an algorithm chosen for its geometry."""

from __future__ import annotations

from collections.abc import Iterator
from weakref import WeakSet

import numpy as np
from numpy.typing import DTypeLike

from distnet.base.arrays import Array, Shape
from distnet.base.keys import MicroBatch
from distnet.nn import arguments
from distnet.nn.conv.algorithm import Algorithm
from distnet.nn.conv.choice import ALGORITHMS, fastest_algorithm
from distnet.nn.conv.geometry import Geometry
from distnet.nn.conv.pooling import MaxPool2d, Pair
from distnet.nn.initializers import checked_init, constant, weight_initializer
from distnet.nn.layer import Layer
from distnet.nn.parameters import Parameter


class _Convolution(Layer):
    """Parameters, a geometry, and the class of the algorithm that computes with them.

    weight: (F, C / groups, KH, KW). bias: (F,), or None.
    """

    geometry: Geometry
    weight: Parameter
    bias: Parameter | None

    def _compute_by(self, algorithm: type[Algorithm]) -> None:
        self._compute = algorithm
        self._loaded: WeakSet[Algorithm] = WeakSet()  # which have the parameters as they are

    def refresh(self) -> None:
        self._loaded.clear()

    def inbox(self, n: int) -> Array | None:
        return self._algorithm(n).inbox

    def forward(self, x: Array, out: Array | None = None, at: MicroBatch | None = None) -> Array:
        self.current = self._algorithm(len(x))
        if self.current not in self._loaded:
            self.current.load(self.weight.value, None if self.bias is None else self.bias.value)
            self._loaded.add(self.current)
        y = self.output(self.current.output_shape, out)
        self.current.forward(x, y, keep=at is not None)
        return y

    def backward(self, dy: Array, out: Array | None = None, need_dx: bool = True) -> Array | None:
        dbias = None if self.bias is None else self.bias.grad
        dx = self.current.backward(dy, self.weight.grad, dbias, need_dx)
        if out is None or dx is None:
            return dx
        np.copyto(out, dx)
        return out

    def _algorithm(self, n: int) -> Algorithm:
        return self.memory.once(
            n, "algorithm", lambda: self._compute(self.geometry, n, self.dtype, self.memory)
        )


class Conv2d(_Convolution):
    """Cross-correlation of images `(N, C, H, W)` with F filters, plus a bias for each filter.

    Weight `(F, C / groups, KH, KW)`, output `(N, F, OH, OW)` with OH = (H + 2 pad - dilation
    (KH - 1) - 1) // stride + 1 (book section 7.2). `kernel`, `stride`, `pad` and `dilation`, the
    distance of a filter's elements, are numbers or pairs (rows, columns). With several `groups` the
    g-th part of the filters sees the g-th part of the channels only (Krizhevsky et al. 2012,
    section 3.5). `bias=False` leaves the bias out, as is usual before a BatchNorm, which would
    subtract it.

    `algorithm` is a key of `ALGORITHMS`, or "auto", the one that multiplies least. All compute the
    same but for rounding; Winograd's round relative to the largest pixel of a tile of up to 6 x 6
    instead of a window (docs/fast-convolution.md has the bound).
    """

    kind = "conv"

    def __init__(
        self,
        filters: int,
        kernel: Pair,
        *,
        stride: Pair = 1,
        pad: Pair = 0,
        dilation: Pair = 1,
        groups: int = 1,
        bias: bool = True,
        init: str | float = "he",
        algorithm: str = "auto",
    ) -> None:
        super().__init__()
        if algorithm != "auto" and algorithm not in ALGORITHMS:
            known = ", ".join(["auto", *ALGORITHMS])
            raise arguments.refusal("Conv2d", "algorithm", algorithm, f"one of {known}")
        self.algorithm = algorithm
        self.filters = arguments.whole("Conv2d", "filters", filters)
        self.kernel = arguments.pair("Conv2d", "kernel", kernel)
        self.stride = arguments.pair("Conv2d", "stride", stride)
        self.pad = arguments.pair("Conv2d", "pad", pad, minimum=0)
        self.dilation = arguments.pair("Conv2d", "dilation", dilation)
        self.groups = arguments.whole("Conv2d", "groups", groups)
        self.init, self.has_bias = checked_init("Conv2d", init), bias

    def build(self, shape: Shape, dtype: DTypeLike = np.float32) -> Shape:
        super().build(shape, dtype)
        c, h, w = arguments.image_shape("Conv2d", shape)
        window = self.kernel, self.stride, self.pad, self.dilation
        g = self.geometry = Geometry(c, h, w, self.filters, *window, self.groups)
        name = fastest_algorithm(g) if self.algorithm == "auto" else self.algorithm
        if not ALGORITHMS[name].suits(g):
            raise ValueError(
                f"Conv2d: algorithm {name} expects {ALGORITHMS[name].expects}; found kernel "
                f"{g.kernel}, stride {g.stride}, pad {g.pad}, dilation {g.dilation}, groups "
                f"{g.groups}; use another one, or auto"
            )
        self._compute_by(ALGORITHMS[name])
        fan_in = g.num_pairs // g.f * g.kh * g.kw
        self.weight = Parameter(g.weight_shape, weight_initializer(self.init, fan_in))
        self.bias = Parameter((g.f,), constant(0), decays=False) if self.has_bias else None
        return g.output_shape

    def fused_with(self, following: Layer) -> Layer | None:
        if not isinstance(following, MaxPool2d) or not following.halves or following.is_undone:
            return None
        pooled = self._compute.pooled(self.geometry)
        return None if pooled is None else _PooledConvolution(self, pooled)

    @property
    def multiply_adds(self) -> int:
        return self.weight.size * self.geometry.oh * self.geometry.ow

    def parameters(self) -> Iterator[tuple[str, Parameter]]:
        yield "weight", self.weight
        if self.bias is not None:
            yield "bias", self.bias


class _PooledConvolution(_Convolution):
    """A Conv2d and the MaxPool2d(2) behind it as one, on the parameters of the first."""

    def __init__(self, conv: Conv2d, algorithm: type[Algorithm]) -> None:
        super().__init__()
        self.dtype, self.geometry = conv.dtype, conv.geometry
        self.weight, self.bias = conv.weight, conv.bias
        self._compute_by(algorithm)
