"""The arithmetic of a network on a device, for each micro-batch of a group by itself.

The same single operations as in `base.arithmetic`, with one difference: the unit of a grid is an
array, one number for each micro-batch, that stays on the device. To look at it from the host would
be to wait for everything before it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from distnet.base.arithmetic import DIGITS, LOWEST_EXPONENT, Arithmetic, bit_length
from distnet.device.devices import Device


class Numbers:
    """How numbers of one layer round. All arrays are `(G, ...)`: G micro-batches."""

    def __init__(self, device: Device, arithmetic: Arithmetic, dtype: np.dtype) -> None:
        self.xp, self.arithmetic, self.dtype = device.xp, arithmetic, dtype
        self.rounds, self.bits = arithmetic.rounds, arithmetic.bits

    def unit(self, x: Any, bits: int) -> Any:
        """As `base.arithmetic.grid_unit`: `(G, 1, ...)`, float64, each a power of two."""
        xp, axes = self.xp, tuple(range(1, x.ndim))
        largest = xp.max(xp.abs(x), axis=axes, keepdims=True).astype(np.float64)
        _, exponent = xp.frexp(largest)
        exponent = xp.maximum(exponent, LOWEST_EXPONENT) - bits
        return xp.ldexp(xp.ones_like(largest), exponent)

    def to_grid(self, x: Any, unit: Any) -> Any:
        """As `base.arithmetic.to_grid`: a new array, float64. Two kernels, which nothing fuses."""
        shift = unit * (1.5 * 2.0**52)
        return self.xp.subtract(self.xp.add(x, shift), shift)

    def operand(self, x: Any) -> Any:
        """`x` as an operand of products: itself, or a copy on a grid."""
        return self.to_grid(x, self.unit(x, self.bits)) if self.rounds else x

    def sum(self, x: Any, axes: tuple[int, ...], dtype: Any = None) -> Any:
        """The sum over `axes`, which do not hold 0: exact where numbers are rounded."""
        if self.rounds:
            num_terms = math.prod(x.shape[axis] for axis in axes)
            x = self.to_grid(x, self.unit(x, DIGITS - bit_length(num_terms)))
        return self.xp.sum(x, axis=axes, dtype=dtype)
