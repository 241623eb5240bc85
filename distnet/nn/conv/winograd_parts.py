"""Convolution with strides or large kernels as one with a small kernel and stride 1, by Winograd.

Along one axis, tap i of a kernel of K taps reads pixel S u + i for output u, with stride S. Taps in
equal distance, i = o + S t for t < q, read the pixels S (u + t) + o: that is a convolution with q
taps and stride 1 on every S-th pixel from o on. With q taps in each part, the parts begin at the
offsets o = S q I + a, a < S, that are less than K. The sum over the parts is that over channels: as
many times the channels as there are parts, among them every S-th pixel, and

    5 x 5, stride 2: 4 parts of 3 x 3 taps, by F(4x4, 3x3) 9 multiplications for a pixel, not 25;
    4 x 4, stride 2: 4 parts of 2 x 2 taps, by F(5x5, 2x2) 5.8, not 16;
    7 x 7, stride 1: 4 parts of 4 x 4 taps, by F(3x3, 4x4) 16, not 49.

Where a part has less than q taps, the others are zero. All of it is copies, and their adjoints,
around a WinogradConvolution.

Letters: N images, C channels in, F filters, kernel KH x KW, q taps on each axis of a part.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import DTypeLike

from distnet.base.arrays import Array, ceil_divide
from distnet.nn.conv.algorithm import Algorithm
from distnet.nn.conv.geometry import Geometry
from distnet.nn.conv.winograd import WinogradConvolution
from distnet.nn.conv.winograd_transforms import POINTS
from distnet.nn.memory import Memory


class _F2(WinogradConvolution):
    m = 2


class _F3(WinogradConvolution):
    m = 3


class _F4(WinogradConvolution):
    m = 4


class _F5(WinogradConvolution):
    m = 5


# q, and F(m x m, q x q), for all for which there are points.
SMALL = [
    (q, small) for q in range(2, 6) for small in (_F2, _F3, _F4, _F5) if small.m + q - 1 in POINTS
]


@dataclass(frozen=True)
class Axis:
    """How the taps of one axis are parted, and which pixels they read."""

    size: int  # of the images
    kernel: int
    stride: int
    pad: int
    output: int
    q: int

    @property
    def offsets(self) -> list[int]:
        """The first tap of each part."""
        pieces = ceil_divide(ceil_divide(self.kernel, self.stride), self.q)
        starts = product(range(pieces), range(self.stride))
        every = [self.stride * self.q * piece + phase for piece, phase in starts]
        return [offset for offset in every if offset < self.kernel]

    def taps(self, offset: int) -> slice:
        """The elements of a filter that belong to a part."""
        return slice(offset, min(offset + self.stride * self.q, self.kernel), self.stride)

    def num_taps(self, offset: int) -> int:
        """How many of them there are."""
        return len(range(self.kernel)[self.taps(offset)])

    def pixels(self, offset: int) -> tuple[slice, slice]:
        """What a part sees, without padding: among its own pixels, and in the images."""
        # Its pixel u is that of the images at s u + first.
        s, first = self.stride, offset - self.pad
        start = max(0, ceil_divide(-first, s))
        stop = min(self.output + self.q - 1, ceil_divide(self.size - first, s))
        length = max(0, stop - start)
        begin = s * start + first
        return slice(start, start + length), slice(begin, begin + s * length, s)


@dataclass(frozen=True)
class Part:
    """Some taps of the filters, and the pixels that they read."""

    channels: slice  # of the small convolution
    filled: tuple[slice, slice]  # taps of its filters that are those of the part
    taps: tuple[slice, slice]  # of a filter
    inner: tuple[slice, slice]  # pixels of the small convolution
    outer: tuple[slice, slice]  # where they lie in the images


class WinogradInParts(Algorithm):
    """Copies each part's pixels side by side as channels, and convolves them at once."""

    expects = "one group and dilation 1"

    @classmethod
    def suits(cls, g: Geometry) -> bool:
        """Whether the kernel has no gaps and sees all channels: such kernels it parts."""
        return g.is_dense

    @classmethod
    def multiplications(cls, g: Geometry) -> int:
        """The multiplications of the small convolution, which has more channels."""
        return _multiplications(g, *_best(g))

    @classmethod
    def pays(cls, g: Geometry, n: int) -> bool:
        """If the small convolution does."""
        q, small = _best(g)
        return small.pays(_small_geometry(g, q), n)

    def __init__(self, geometry: Geometry, n: int, dtype: DTypeLike, memory: Memory) -> None:
        super().__init__(geometry, n, dtype, memory)
        g = geometry
        q, small = _best(g)
        self.parts, inner = list(_parts(g, q)), _small_geometry(g, q)
        spans = (q * s for s in g.stride)  # with one part for each phase of an axis
        self.is_disjoint = all(k <= span for k, span in zip(g.kernel, spans, strict=True))
        self.small = small(inner, n, dtype, memory.for_inner(0))
        assert self.small.inbox is not None
        self.images = self.small.inbox  # what no part sees of it is padding: it stays zero
        self.weight = memory.constant("weight", inner.weight_shape, dtype)  # zero between the taps
        self.dweight = memory.constant("dweight", inner.weight_shape, dtype)

    def load(self, weight: Array, bias: Array | None) -> None:
        """Takes the parameters."""
        for part in self.parts:
            np.copyto(self._filters(self.weight, part), weight[:, :, *part.taps])
        self.small.load(self.weight, bias)

    def forward(self, x: Array, out: Array, keep: bool) -> None:
        """Copies each part's pixels to where its channels are, and convolves."""
        for part in self.parts:
            np.copyto(self.images[:, part.channels, *part.inner], x[:, :, *part.outer])
        self.small.forward(self.images, out, keep)

    def backward(
        self, dy: Array, dweight: Array, dbias: Array | None, need_dx: bool
    ) -> Array | None:
        """The small convolution's gradients; those of pixels that several parts saw are added."""
        g = self.geometry
        dparts = self.small.backward(dy, self.dweight, dbias, need_dx)
        for part in self.parts:
            np.copyto(dweight[:, :, *part.taps], self._filters(self.dweight, part))
        if dparts is None:
            return None
        dx = self.memory.gradient((self.n, g.c, g.h, g.w), self.dtype)
        dx[...] = 0
        for part in self.parts:
            pixels, dpart = dx[:, :, *part.outer], dparts[:, part.channels, *part.inner]
            if self.is_disjoint:
                np.copyto(pixels, dpart)
            else:
                np.add(pixels, dpart, out=pixels)
        return dx

    def _filters(self, weight: Array, part: Part) -> Array:
        """A part's taps among the small convolution's weights, (F, C, taps, taps)."""
        return weight[:, part.channels, *part.filled]


def _best(g: Geometry) -> tuple[int, type[WinogradConvolution]]:
    """The small convolution that multiplies least."""
    return min(SMALL, key=lambda each: _multiplications(g, *each))


def _axes(g: Geometry, q: int) -> tuple[Axis, Axis]:
    rows = Axis(g.h, g.kh, g.stride[0], g.pad[0], g.oh, q)
    return rows, Axis(g.w, g.kw, g.stride[1], g.pad[1], g.ow, q)


def _small_geometry(g: Geometry, q: int) -> Geometry:
    rows, columns = _axes(g, q)
    num_parts = len(rows.offsets) * len(columns.offsets)
    return Geometry(num_parts * g.c, g.oh + q - 1, g.ow + q - 1, g.f, (q, q))


def _multiplications(g: Geometry, q: int, small: type[WinogradConvolution]) -> int:
    inner = _small_geometry(g, q)
    return inner.c // g.c * small.multiplications(inner)


def _parts(g: Geometry, q: int) -> Iterator[Part]:
    rows, columns = _axes(g, q)
    for i, (top, left) in enumerate(product(rows.offsets, columns.offsets)):
        inner_rows, outer_rows = rows.pixels(top)
        inner_columns, outer_columns = columns.pixels(left)
        yield Part(
            channels=slice(i * g.c, (i + 1) * g.c),
            filled=(slice(rows.num_taps(top)), slice(columns.num_taps(left))),
            taps=(rows.taps(top), columns.taps(left)),
            inner=(inner_rows, inner_columns),
            outer=(outer_rows, outer_columns),
        )
