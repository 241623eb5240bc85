"""The arithmetic of a network on a device, for each micro-batch of a group by itself.

The same single operations as in `base.arithmetic`, with one difference: the unit of a grid is an
array, one number for each micro-batch, that stays on the device. To look at it from the host would
be to wait for everything before it.
"""

from __future__ import annotations

from typing import Any

from distnet.base.arithmetic import Arithmetic
from distnet.device.devices import Device


class Numbers:
    """How numbers of one layer round. All arrays are `(G, ...)`: G micro-batches."""

    def __init__(self, device: Device, arithmetic: Arithmetic) -> None:
        self.kernels = device.kernels
        self.rounds, self.bits = arithmetic.rounds, arithmetic.bits

    def operand(self, x: Any) -> Any:
        """`x` as an operand of products: itself, or a copy on a grid."""
        kernels = self.kernels
        return kernels.to_grid(x, kernels.unit(x, self.bits)) if self.rounds else x

    def addends(self, x: Any, num_terms: int) -> Any:
        """`x` as so many terms of a sum: itself, or a copy whose sum is exact."""
        return self.kernels.terms(x, num_terms) if self.rounds else x
