"""Exact sums in half a byte an element: those of `exact8`, with two numbers in each byte.

No sum leaves -7 to 7, so two of them, l and h, travel as l + 16 h, which fits int8. Bytes of
several ranks add up as they are: their sum is that of the l plus 16 times that of the h, and both
can be told apart again. So any exchange that adds whole numbers carries them.

Two contributions have three levels on either side of zero, four to seven have one: plus, minus or
nothing (Wen et al. 2017, TernGrad, arXiv:1705.07878). So groups are smaller than those of `exact8`,
and most of a change is kept for later, see there.
"""

from __future__ import annotations

import numpy as np

from distnet.base.arrays import Array
from distnet.parallel.sums.exact8 import Exact8


class Exact4(Exact8):
    """Whole numbers of a unit that suits the largest contribution, in four bits of a message."""

    wire_itemsize = 0.5
    most = 7
    fewest_levels = 1
    group = 1024

    def encode(self, total: Array, start: int) -> Array:
        message = np.zeros((total.size + 1) // 2, np.int8)
        message[: total.size // 2] = total[1::2]
        message *= 16
        message += total[0::2]
        return message

    def decode(self, message: Array, start: int, out: Array) -> None:
        total = np.empty(2 * message.size, np.int8)
        low, high = total[0::2], total[1::2]
        np.bitwise_and(message + np.int8(8), np.int8(15), out=low)
        low -= np.int8(8)
        np.right_shift(message - low, 4, out=high)
        self.convert(total[: out.size], start, out)
