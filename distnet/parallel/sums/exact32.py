"""Exact sums in half the bytes: the whole numbers of `fixed_point`, in a coarser unit, as int32.

Unit. The vector is cut into groups of 16384 elements (from its end, whatever the buckets), each
with its own scale 2^s: the gradients of a step are rounded to multiples of 2^-s. The scale follows
from the last step's total alone, which all ranks know alike: if its largest magnitude in the group
is below 2^e, then s = 26 - e, and 40 at most, which is the scale of the int64 format; in the first
step, and after one whose gradients are all zero, it is 40. The scales are part of a run's state:
checkpoints hold them, so that a resumed run rounds as one that was never stopped.

Precision. A contribution is off by at most 2^-26 of the largest total of its group in the step
before, or by 2^-41 if that is more; float32 is off by up to 2^-24 of each value's own magnitude. So
elements far smaller than the largest of their group lose bits that float32 would keep.

Head-room. Ranks add up int64, which holds everything, and send int32 if that fits: the totals of
the ranks may be 32 times the largest total of the step before. The last element of each message is
a bound of the rank's magnitudes in units of 2^16, rounded up. If these add up to at most 2^15, no
sum of some ranks' numbers can have left int32, in any order. If not, all ranks see the same sum and
the same whole numbers travel again as int64. So the number of ranks decides at most how often that
happens, and never a bit.

Scaling by what all ranks know: Mishchenko et al. 2022, IntSGD, arXiv:2102.08374, section 4; block
fixed point in int32 on the wire: Sapio et al. 2021, SwitchML, arXiv:1903.06701, section 3.7.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import ldexp

import numpy as np

from distnet.base.arrays import Array
from distnet.parallel.sums.fixed_point import FixedPoint, blocks_from_end
from distnet.parallel.sums.formats import Exact

GROUP = 16384  # elements
FINEST_BITS = 40  # of the int64 format, whose limit then holds for every scale here
TARGET_BITS = 26  # of the largest total if the gradients are as in the last step
UNIT_BITS = 16
MOST_UNITS = 1 << 15  # together: 2^31


class Exact32(Exact):
    """Fixed point in int32 where it fits, else in int64: the same bits on any number of ranks.

    state: `scale_bits`, int64 (groups,), from the end of the vector.
    """

    wire_itemsize = 4

    def __init__(self, size: int, num_contributions: int) -> None:
        super().__init__(size, num_contributions)
        self._groups = list(blocks_from_end(size, GROUP))
        self._bits = np.full(len(self._groups), FINEST_BITS, np.int64)
        self.state = {"scale_bits": self._bits}
        self._messages: dict[int, Array] = {}

    @property
    def units(self) -> FixedPoint | None:
        """None: each group of numbers has a scale of its own."""
        return None

    def add(self, total: Array, values: Array, start: int, first: bool) -> int | None:
        offender = None
        for piece, scale in self._pieces(start, start + values.size):
            index = self._fixed_point.add(total[piece], values[piece], scale, first=first)
            if index is not None and offender is None:
                offender = piece.start + index
        return offender

    def convert(self, total: Array, start: int, out: Array) -> None:
        for piece, scale in self._pieces(start, start + out.size):
            self._fixed_point.to_float(total[piece], out[piece], scale)

    def encode(self, total: Array, start: int) -> Array:
        message = self._message(start, total.size)
        largest = max(int(total.max()), -int(total.min()))
        np.copyto(message[:-1], total, casting="unsafe")  # meaningless if it does not fit
        message[-1] = min((largest >> UNIT_BITS) + 1, MOST_UNITS + 1)
        return message

    def holds(self, message: Array) -> bool:
        return bool(message[-1] <= MOST_UNITS)

    def decode(self, message: Array, start: int, out: Array) -> None:
        self.convert(message[:-1], start, out)

    def settle(self, result: Array) -> None:
        groups = [result[group] for group in self._groups]
        largest = [max(float(group.max()), -float(group.min())) for group in groups]
        _, exponents = np.frexp(largest)
        bits = np.where(np.equal(largest, 0), FINEST_BITS, TARGET_BITS - exponents)
        np.minimum(bits, FINEST_BITS, out=self._bits)

    def _message(self, start: int, size: int) -> Array:
        """Memory for the elements of a piece and the bound of their magnitudes, int32 (n + 1,)."""
        known = self._messages.get(start)
        if known is None or known.size != size + 1:
            self._messages[start] = np.empty(size + 1, np.int32)
        return self._messages[start]

    def _pieces(self, start: int, stop: int) -> Iterator[tuple[slice, float]]:
        """[start, stop) cut where a group begins, from the end: slices of it with their scales."""
        first, last = (self.size - stop) // GROUP, (self.size - start - 1) // GROUP
        for number in range(first, last + 1) if start < stop else ():
            group, scale = self._groups[number], ldexp(1.0, int(self._bits[number]))
            yield slice(max(start, group.start) - start, min(stop, group.stop) - start), scale
