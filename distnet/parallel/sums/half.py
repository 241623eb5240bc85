"""Sums that travel in 16 bits an element: float16, and bfloat16, the upper half of float32.

Each rank adds up in float32 and rounds its sum once for the wire. MPI knows neither format, so the
ranks are combined by an operation of ours, which MPI calls for every pair of messages: it adds in
float32 and rounds again, about log2(ranks) times for each element. Parameters, optimizer and
everything else stay float32. (Master values: Micikevicius et al. 2018, arXiv:1710.03740, 3.1.)

How ranks share the work decides what is rounded, so both formats give up the same bits on any
number of ranks.
"""

from __future__ import annotations

from abc import abstractmethod

import numpy as np

from distnet.base.arrays import Array
from distnet.base.halves import bfloat16_bits
from distnet.parallel.sums.fixed_point import blocks_from_end
from distnet.parallel.sums.formats import Float32


class Half(Float32):
    """Added up in float32, sent as 16-bit patterns in a uint16 vector."""

    wire_itemsize = 2

    def __init__(self, size: int, num_contributions: int) -> None:
        super().__init__(size, num_contributions)
        self._wire = np.zeros(size, np.uint16)
        self.op = self.combine

    @staticmethod
    @abstractmethod
    def pack(values: Array, out: Array) -> None:
        """Rounds float32 `values` (n,) to nearest, ties to even, into 16-bit patterns `out`."""

    @staticmethod
    @abstractmethod
    def unpack(patterns: Array, out: Array) -> None:
        """Writes the values of 16-bit `patterns` (n,) to `out`, float32."""

    @classmethod
    def combine(cls, source: Array, target: Array) -> None:
        """Adds patterns `source` (n,) to `target` (n,): what MPI does to two messages."""
        for block in blocks_from_end(source.size):
            first, second = (np.empty(block.stop - block.start, np.float32) for _ in range(2))
            cls.unpack(source[block], first)
            cls.unpack(target[block], second)
            first += second
            cls.pack(first, target[block])

    def encode(self, total: Array, start: int) -> Array:
        message = self._wire[start : start + total.size]
        for block in blocks_from_end(message.size):
            self.pack(total[block], message[block])
        return message

    def decode(self, message: Array, start: int, out: Array) -> None:
        for block in blocks_from_end(message.size):
            self.unpack(message[block], out[block])


class Float16(Half):
    """IEEE 754 binary16: 11 significant bits, of multiples of 256 times the gradient.

    Gradients below 2^-22 (2.4e-7) lose bits, below 2^-33 they vanish; the factor of 256 moves that
    range to where gradients are (loss scaling, arXiv:1710.03740, section 3.2). The largest number
    is 2^8 - 2^-3; half of it, shared out over the contributions, is the limit of each.
    """

    FACTOR = np.float32(256)

    def __init__(self, size: int, num_contributions: int) -> None:
        super().__init__(size, num_contributions)
        self.limit = 2.0**7 / num_contributions

    @staticmethod
    def pack(values: Array, out: Array) -> None:
        np.multiply(values, Float16.FACTOR, out=out.view(np.float16), casting="same_kind")

    @staticmethod
    def unpack(patterns: Array, out: Array) -> None:
        np.multiply(patterns.view(np.float16), 1 / Float16.FACTOR, out=out)


class BFloat16(Half):
    """The range of float32 with 8 significant bits (Kalamkar et al. 2019, arXiv:1905.12322)."""

    @staticmethod
    def pack(values: Array, out: Array) -> None:
        np.right_shift(bfloat16_bits(values), 16, out=out, casting="unsafe")

    @staticmethod
    def unpack(patterns: Array, out: Array) -> None:
        np.left_shift(patterns, 16, out=out.view(np.uint32), dtype=np.uint32)
