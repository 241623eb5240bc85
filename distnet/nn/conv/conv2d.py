"""Conv2d: the layer; the arithmetic is done by an algorithm chosen for its geometry.

An algorithm is built for one geometry and one batch size, owns its (padded) input array, if it has
one, and offers `inbox`, `load`, `forward` and `backward`; `im2col.Im2colConvolution` is the
reference that shows what each of them means. The others compute the same, faster.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import partial
from typing import Protocol
from weakref import WeakSet

import numpy as np
from numpy.typing import DTypeLike

from distnet.base.arrays import Array, Shape, ceil_divide
from distnet.base.keys import MicroBatch
from distnet.nn import arguments
from distnet.nn.conv.direct import BlockedConvolution, FewChannelConvolution
from distnet.nn.conv.direct_pool import PooledFewChannelConvolution
from distnet.nn.conv.geometry import Geometry
from distnet.nn.conv.im2col import Im2colConvolution
from distnet.nn.conv.winograd import WinogradConvolution, supports
from distnet.nn.conv.winograd_pool import PooledWinogradConvolution
from distnet.nn.initializers import checked_init, constant, weight_initializer
from distnet.nn.layer import Layer
from distnet.nn.memory import Memory
from distnet.nn.parameters import Parameter


class Algorithm(Protocol):
    """How one convolution is computed for one batch size."""

    output_shape: Shape

    @property
    def inbox(self) -> Array | None: ...

    def load(self, weight: Array, bias: Array | None) -> None: ...
    def forward(self, x: Array, out: Array, keep: bool) -> None: ...
    def backward(
        self, dy: Array, dweight: Array, dbias: Array | None, need_dx: bool
    ) -> Array | None: ...


Maker = Callable[[Geometry, int, DTypeLike, Memory], Algorithm]
ALGORITHMS: dict[str, Maker] = {
    "im2col": Im2colConvolution,
    "few_channels": FewChannelConvolution,
    "blocked": BlockedConvolution,
    "winograd2": partial(WinogradConvolution, m=2),
    "winograd4": partial(WinogradConvolution, m=4),
}

# Those that also do the max pooling by 2 that follows, while their output is in the cache.
POOLING_ALGORITHMS: dict[str, Maker] = {
    "few_channels": PooledFewChannelConvolution,
    "winograd2": partial(PooledWinogradConvolution, m=2),
    "winograd4": partial(PooledWinogradConvolution, m=4),
}


def suits(name: str, g: Geometry) -> bool:
    """Whether an algorithm can compute a geometry; all but Winograd's can compute any."""
    return not name.startswith("winograd") or supports(_tile(name), g)


def multiplications(name: str, g: Geometry) -> int:
    """What an algorithm multiplies for each image and pair of channels, transforms left out.

    Winograd multiplies once for each point of a tile, also for tiles that stick out of the image;
    the direct product once for each pixel and element of the kernel.
    """
    if name.startswith("winograd"):
        m = _tile(name)
        return (m + g.kh - 1) ** 2 * ceil_divide(g.oh, m) * ceil_divide(g.ow, m)
    return g.kh * g.kw * g.oh * g.ow


def fastest_algorithm(g: Geometry) -> str:
    """The name of the algorithm that multiplies least, among those that suit the geometry."""
    if g.c <= 4:
        return "few_channels"
    names = [name for name in ("winograd4", "winograd2", "blocked") if suits(name, g)]
    return min(names, key=lambda name: multiplications(name, g))


def _tile(name: str) -> int:
    """The side of the output tiles of one of Winograd's algorithms."""
    return int(name.removeprefix("winograd"))


class Conv2d(Layer):
    """Cross-correlation of images `(N, C, H, W)` with F filters, plus a bias for each filter.

    Weight `(F, C, KH, KW)`, output `(N, F, OH, OW)` with OH = (H + 2 pad - KH) // stride + 1 (book
    section 7.2). `kernel` is a side or (KH, KW). `bias=False` leaves the bias out, as is usual
    before a BatchNorm, which would subtract it. `algorithm` is a key of `ALGORITHMS`, or "auto".
    """

    kind = "conv"

    def __init__(
        self,
        filters: int,
        kernel: int | tuple[int, int],
        *,
        stride: int = 1,
        pad: int = 0,
        bias: bool = True,
        init: str | float = "he",
        algorithm: str = "auto",
    ) -> None:
        super().__init__()
        if algorithm != "auto" and algorithm not in ALGORITHMS:
            known = ", ".join(["auto", *ALGORITHMS])
            raise ValueError(f"algorithm: found {algorithm!r}, expected one of {known}")
        self.algorithm = algorithm
        self.filters = arguments.whole("Conv2d", "filters", filters)
        self.kernel = arguments.pair("Conv2d", "kernel", kernel)
        self.stride = arguments.whole("Conv2d", "stride", stride)
        self.pad = arguments.whole("Conv2d", "pad", pad, minimum=0)
        self.init = checked_init("Conv2d", init)
        self.has_bias = bias

    def build(self, shape: Shape, dtype: DTypeLike = np.float32) -> Shape:
        super().build(shape, dtype)
        self._makers = ALGORITHMS
        self._loaded: WeakSet[Algorithm] = WeakSet()  # which have the present parameters
        c, h, w = arguments.image_shape("Conv2d", shape)
        g = self.geometry = Geometry(c, h, w, self.filters, *self.kernel, self.stride, self.pad)
        if not suits(self._algorithm_name, g):
            raise ValueError(
                f"algorithm {self.algorithm}: found kernel {g.kh} x {g.kw} and stride {g.stride}, "
                "expected stride 1 and a 3 x 3 kernel, for winograd2 also 5 x 5; or use auto"
            )
        init = weight_initializer(self.init, c * g.kh * g.kw)
        self.weight = Parameter((g.f, c, g.kh, g.kw), init)
        self.bias = Parameter((g.f,), constant(0), decays=False)
        return g.output_shape

    def with_pooling(self) -> Conv2d | None:
        """The layer and the MaxPool2d(2) behind it as one, on the same parameters.

        None if the algorithm cannot do that, or windows do not tile the output.
        """
        g, name = self.geometry, self._algorithm_name
        if name not in POOLING_ALGORITHMS or g.oh % 2 or g.ow % 2:
            return None
        both = copy.copy(self)
        both._makers, both._loaded, both.memory = POOLING_ALGORITHMS, WeakSet(), Memory()
        return both

    @property
    def multiply_adds(self) -> int:
        return self.weight.size * self.geometry.oh * self.geometry.ow

    def parameters(self) -> Iterator[tuple[str, Parameter]]:
        yield "weight", self.weight
        if self.has_bias:
            yield "bias", self.bias

    def refresh(self) -> None:
        self._loaded.clear()

    def inbox(self, n: int) -> Array | None:
        return self._algorithm(n).inbox

    def forward(self, x: Array, out: Array | None = None, at: MicroBatch | None = None) -> Array:
        self.current = self._algorithm(len(x))
        if self.current not in self._loaded:
            bias = self.bias.value if self.has_bias else None
            self.current.load(self.weight.value, bias)
            self._loaded.add(self.current)
        y = self.output(self.current.output_shape, out)
        self.current.forward(x, y, keep=at is not None)
        return y

    def backward(self, dy: Array, out: Array | None = None, need_dx: bool = True) -> Array | None:
        dbias = self.bias.grad if self.has_bias else None
        dx = self.current.backward(dy, self.weight.grad, dbias, need_dx)
        if out is None or dx is None:
            return dx
        np.copyto(out, dx)
        return out

    @property
    def _algorithm_name(self) -> str:
        return fastest_algorithm(self.geometry) if self.algorithm == "auto" else self.algorithm

    def _algorithm(self, n: int) -> Algorithm:
        make = self._makers[self._algorithm_name]
        return self.memory.once(
            n, "algorithm", lambda: make(self.geometry, n, self.dtype, self.memory)
        )
