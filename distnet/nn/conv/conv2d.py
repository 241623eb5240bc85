"""Conv2d: the layer; the arithmetic is done by an algorithm chosen for its geometry."""

from __future__ import annotations

from collections.abc import Iterator
from weakref import WeakSet

import numpy as np
from numpy.typing import DTypeLike

from distnet.base.arithmetic import grid_unit, portable, to_grid
from distnet.base.arrays import Array, Shape
from distnet.base.keys import MicroBatch
from distnet.nn import arguments, layout
from distnet.nn.conv.algorithm import FILTER_BITS, NINE, Algorithm
from distnet.nn.conv.choice import ALGORITHMS, algorithm_for, faster_for
from distnet.nn.conv.geometry import Geometry
from distnet.nn.conv.pooling import MaxPool2d, Pair
from distnet.nn.initializers import checked_init, constant, weight_initializer
from distnet.nn.layer import Layer
from distnet.nn.own_layers import computes_as
from distnet.nn.parameters import Parameter

BIAS_BITS = 40  # of a bias in units of the products


class _Convolution(Layer):
    """Parameters, a geometry, and the class of the algorithm that computes with them.

    weight: (F, C / groups, KH, KW). bias: (F,), or None.

    In portable arithmetic the algorithm works on pixels, filters and gradients that are rounded to
    grids here, so that whatever it is, it returns the exact sums. Filters are multiples of 9 units:
    Winograd's transform of them has thirds. The bias is rounded to the grid of the products and
    added afterwards, exactly, so that it makes no difference whether pooling comes before it.
    """

    geometry: Geometry
    weight: Parameter
    bias: Parameter | None

    def _compute_by(self, algorithm: type[Algorithm]) -> None:
        self._compute = algorithm
        self._loaded: WeakSet[Algorithm] = WeakSet()  # which have the parameters as they are

    def refresh(self) -> None:
        self._loaded.clear()

    def computing_weight(self) -> Array:
        """What the algorithm multiplies by: the weight, unless a layer makes something of it."""
        return self.weight.value

    def inbox(self, n: int) -> Array | None:
        """None where pixels are rounded on their way into it: whoever made them keeps his own."""
        return None if self.arithmetic.rounds else self._algorithm(n).inbox

    def forward(self, x: Array, out: Array | None = None, at: MicroBatch | None = None) -> Array:
        self.current = self._algorithm(len(x))
        if self.arithmetic.rounds:
            return self._forward_on_grids(x, out, at)
        if self.current not in self._loaded:
            bias = None if self.bias is None else self.bias.value
            self.current.load(self.computing_weight(), bias)
            self._loaded.add(self.current)
        y = self.output(self.current.output_shape, out)
        self.current.forward(x, y, keep=at is not None)
        return y

    def backward(self, dy: Array, out: Array | None = None, need_dx: bool = True) -> Array | None:
        dbias = None if self.bias is None else self.bias.grad
        dx = self.current.backward(self.operand(dy), self.weight.grad, dbias, need_dx)
        if out is None or dx is None:
            return dx
        np.copyto(out, dx)
        return out

    def _algorithm(self, n: int) -> Algorithm:
        return self.memory.once(n, "algorithm", lambda: self._make_algorithm(n))

    def _make_algorithm(self, n: int) -> Algorithm:
        g = self.geometry
        self.arithmetic.check_terms("Conv2d", n * g.oh * g.ow, FILTER_BITS)
        algorithm = self._computing(n)(g, n, self.dtype, self.memory)
        if self.arithmetic.rounds:
            algorithm.work_on_grids(self.arithmetic.bits)
        return algorithm

    def _computing(self, n: int) -> type[Algorithm]:
        """The class of the algorithm for batches of n images."""
        return self._compute

    def _forward_on_grids(self, x: Array, out: Array | None, at: MicroBatch | None) -> Array:
        current, filters = self.current, self.memory.constant("w", self.weight.shape, self.dtype)
        if current not in self._loaded:
            np.divide(self.computing_weight(), NINE, out=filters, dtype=self.dtype)
            self.filter_unit = grid_unit(filters, self.arithmetic.bits)
            np.multiply(to_grid(filters, self.filter_unit, filters), NINE, out=filters)
            current.load(filters, None)
            self._loaded.add(current)
        unit = grid_unit(x, self.arithmetic.bits)
        if self.bias is not None:
            # Where x W is negligible beside the bias, x may as well be coarser.
            finest = grid_unit(self.bias.value, BIAS_BITS)
            unit = max(unit, finest / self.filter_unit)
        place = current.inbox
        if place is None:
            place = self.memory.array("x", x.shape, self.dtype)
        y = self.output(current.output_shape, out)
        current.forward(to_grid(x, unit, place), y, keep=at is not None)
        self._add_bias(y, unit * self.filter_unit)
        return y

    def _add_bias(self, y: Array, unit: float) -> None:
        """Adds the bias, rounded to the grid of the products; 0 in place of none, for no -0."""
        pixels = layout.native(y)  # (OH, OW, N, F)
        row = self.memory.array("bias", (len(y), pixels.shape[1] * pixels.shape[3]), self.dtype)
        row = row.reshape(pixels.shape[1:])
        row[...] = 0
        if self.bias is not None:
            to_grid(self.bias.value, unit, row)
        if pixels.flags.c_contiguous:  # rows of pixels as one run each
            pixels, row = pixels.reshape(len(pixels), -1), row.reshape(-1)
        np.add(pixels, row, out=pixels)


@portable
class Conv2d(_Convolution):
    """Cross-correlation of images `(N, C, H, W)` with F filters, plus a bias for each filter.

    Weight `(F, C / groups, KH, KW)`, output `(N, F, OH, OW)` with OH = (H + 2 pad - dilation
    (KH - 1) - 1) // stride + 1 (book section 7.2). `kernel`, `stride`, `pad` and `dilation`, the
    distance of a filter's elements, are numbers or pairs (rows, columns). With several `groups` the
    g-th part of the filters sees the g-th part of the channels only (Krizhevsky et al. 2012,
    section 3.5). `bias=False` leaves the bias out, as is usual before a BatchNorm, which would
    subtract it.

    `algorithm` is a key of `ALGORITHMS`, or "auto", the one that multiplies least, where there are
    images enough for it. All compute the same but for rounding; Winograd's round relative to the
    largest pixel of a tile of up to 6 x 6 instead of a window (docs/fast-convolution.md has
    figures).
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
        self._compute_by(algorithm_for(g, self.algorithm, self.arithmetic))
        fan_in = g.num_pairs // g.f * g.kh * g.kw
        self.weight = Parameter(g.weight_shape, weight_initializer(self.init, fan_in))
        self.bias = Parameter((g.f,), constant(0), decays=False) if self.has_bias else None
        return g.output_shape

    def _computing(self, n: int) -> type[Algorithm]:
        if self.algorithm != "auto" or self.arithmetic.rounds:
            return self._compute
        return faster_for(n, self._compute, self.geometry)

    def fused_with(self, following: Layer) -> Layer | None:
        if not computes_as(following, MaxPool2d) or not following.halves or following.is_undone:
            return None
        if not computes_as(self, Conv2d):
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
        self.weight, self.bias, self.arithmetic = conv.weight, conv.bias, conv.arithmetic
        self._conv = conv
        self._compute_by(algorithm)

    def computing_weight(self) -> Array:
        return self._conv.computing_weight()
