"""What Conv2d asks of the algorithms that compute it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np
from numpy.typing import DTypeLike

from distnet.base.arithmetic import DIGITS, bit_length
from distnet.base.arrays import Array, Shape
from distnet.nn.conv.geometry import Geometry
from distnet.nn.memory import Memory

NINE = 9.0  # filters on a grid are multiples of 9 units, see docs/portable.md
FILTER_BITS = 5  # by how many bits that makes products longer, and a sum whose bias is added


class Algorithm(ABC):
    """How convolutions of one geometry are computed for batches of n images.

    `im2col.Im2colConvolution` shows what each method means; the others compute the same, faster.
    Arrays come from the layer's memory: `forward` and `backward` may be those of other batch sizes
    in between, but what `backward` reads is what the last `forward` was given.
    """

    expects: ClassVar[str] = "any"  # the geometries that suit it, in words
    inbox: Array | None = None  # where the images (N, C, H, W) are best written to, if anywhere

    @classmethod
    def suits(cls, g: Geometry) -> bool:
        """Whether it can compute a geometry."""
        return True

    @classmethod
    def fits(cls, g: Geometry, bits: int) -> bool:
        """Whether all sums of a pass forward and of dx are exact in portable arithmetic.

        Of pixels and gradients of `bits` bits and of filters that are 9 times a number of `bits`
        bits. Those of the filters' gradient depend on the number of images, see `check_terms`. The
        direct product adds up K products, K = C / groups KH KW forward and F / groups KH KW for dx:
        in units of the last bit of a product they are whole numbers, and so is every partial sum,
        in any order, of at most 2 bits + log2 9 + log2 K bits.
        """
        longest = max(g.c, g.f) // g.groups * g.kh * g.kw
        return 2 * bits + FILTER_BITS + bit_length(longest) <= DIGITS

    @classmethod
    def multiplications(cls, g: Geometry) -> int:
        """What it multiplies for an image, a channel and a filter, without transforms of these.

        The direct product multiplies once for each output pixel and element of the kernel.
        """
        return g.kh * g.kw * g.oh * g.ow

    @classmethod
    def pays(cls, g: Geometry, n: int) -> bool:
        """Whether it has enough to do in a batch of n images to be faster than a direct product."""
        return True

    @classmethod
    def pooled(cls, g: Geometry) -> type[Algorithm] | None:
        """What computes the maxima of 2 x 2 windows of the output as well, in their place.

        None if there is no such algorithm, or if the windows do not tile the output.
        """
        return None

    def __init__(self, geometry: Geometry, n: int, dtype: DTypeLike, memory: Memory) -> None:
        self.geometry, self.n, self.dtype, self.memory = geometry, n, np.dtype(dtype), memory
        self.output_shape: Shape = (n, *geometry.output_shape)

    @abstractmethod
    def load(self, weight: Array, bias: Array | None) -> None:
        """Takes the parameters: weight (F, C / groups, KH, KW), bias (F,) if there is one."""

    @abstractmethod
    def forward(self, x: Array, out: Array, keep: bool) -> None:
        """From `x` (N, C, H, W) to `out` (N, F, OH, OW).

        `keep`: a backward pass will follow, for which what is costly to compute again may stay.
        """

    @abstractmethod
    def backward(
        self, dy: Array, dweight: Array, dbias: Array | None, need_dx: bool
    ) -> Array | None:
        """The gradients of the last forward pass; returns that of the input, (N, C, H, W)."""

    def work_on_grids(self, bits: int) -> None:
        """Told once, in portable arithmetic, of how many bits operands are.

        Raises ValueError if sums over so many images may not be exact.
        """
        return None

    def receive(self, x: Array) -> None:
        """Images that were written elsewhere into the inbox."""
        if self.inbox is not None and x is not self.inbox:
            np.copyto(self.inbox, x)


def halves_evenly(g: Geometry) -> bool:
    """Whether windows of 2 x 2 pixels tile the output."""
    return g.oh % 2 == 0 and g.ow % 2 == 0
