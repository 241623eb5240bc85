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
send the same whole numbers again as int64. So the number of ranks decides at most how often that
happens, and never a bit.

Scaling by what all ranks know: Mishchenko et al. 2022, IntSGD, arXiv:2102.08374, section 4; block
fixed point in int32 on the wire: Sapio et al. 2021, SwitchML, arXiv:1903.06701, section 3.7.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import ldexp

import numpy as np

from distnet.base.arrays import Array
from distnet.parallel.communicator import Communicator, Request
from distnet.parallel.sums.fixed_point import blocks_from_end
from distnet.parallel.sums.formats import ExactSum

GROUP = 16384  # elements
FINEST_BITS = 40  # of the int64 format, whose limit then holds for every scale here
TARGET_BITS = 26  # of the largest total if the gradients are as in the last step
UNIT_BITS = 16
MOST_UNITS = 1 << 15  # together: 2^31


class Exact32Sum(ExactSum):
    """Fixed point in int32 where it fits, else in int64: the same bits on any number of ranks.

    state: `scale_bits`, int64 (groups,), from the end of the vector. num_repeats: how many buckets
    did not fit since `clear`.
    """

    wire_itemsize = 4

    def __init__(self, size: int, num_contributions: int) -> None:
        super().__init__(size, num_contributions)
        self._groups = list(blocks_from_end(size, GROUP))
        self._bits = np.full(len(self._groups), FINEST_BITS, np.int64)
        self.state = {"scale_bits": self._bits}
        self._messages: dict[int, Array] = {}
        self._comm: Communicator | None = None
        self.num_repeats = 0

    def clear(self) -> None:
        super().clear()
        self.num_repeats = 0

    def _accumulate(self, values: Array, start: int, first: bool) -> int | None:
        offender = None
        for piece, scale in self._pieces(start, start + values.size):
            there = slice(piece.start - start, piece.stop - start)
            index = self._fixed_point.add(self._total[piece], values[there], scale, first=first)
            if index is not None and offender is None:
                offender = there.start + index
        return offender

    def exchange(self, comm: Communicator, bucket: slice) -> Request:
        total, message = self._own(bucket), self._message(bucket)
        largest = max(int(total.max()), -int(total.min()))
        np.copyto(message[:-1], total, casting="unsafe")  # meaningless if it does not fit
        message[-1] = min((largest >> UNIT_BITS) + 1, MOST_UNITS + 1)
        self._comm = comm
        self.bytes_sent += message.nbytes
        return comm.iallreduce(message)

    def read(self, bucket: slice) -> None:
        message = self._message(bucket)
        fits = message[-1] <= MOST_UNITS
        total = message[:-1] if fits else self._repeat(bucket)
        for piece, scale in self._pieces(bucket.start, bucket.stop):
            there = slice(piece.start - bucket.start, piece.stop - bucket.start)
            self._fixed_point.to_float(total[there], self.result[piece], scale)

    def settle(self) -> None:
        groups = [self.result[group] for group in self._groups]
        largest = [max(float(group.max()), -float(group.min())) for group in groups]
        _, exponents = np.frexp(largest)
        bits = np.where(np.equal(largest, 0), FINEST_BITS, TARGET_BITS - exponents)
        np.minimum(bits, FINEST_BITS, out=self._bits)

    def _repeat(self, bucket: slice) -> Array:
        """Combines a bucket as int64, which always fits; returns its total."""
        assert self._comm is not None
        total = self._total[bucket]
        self._comm.allreduce(total)
        self.bytes_sent += total.nbytes
        self.num_repeats += 1
        return total

    def _message(self, bucket: slice) -> Array:
        """The bucket's elements and the bound of their magnitudes, int32 (n + 1,)."""
        if bucket.start not in self._messages:
            self._messages[bucket.start] = np.empty(bucket.stop - bucket.start + 1, np.int32)
        return self._messages[bucket.start]

    def _pieces(self, start: int, stop: int) -> Iterator[tuple[slice, float]]:
        """[start, stop) cut where a group begins, each piece with its scale, from the end."""
        first, last = (self.size - stop) // GROUP, (self.size - start - 1) // GROUP
        for number in range(first, last + 1) if start < stop else ():
            group, scale = self._groups[number], ldexp(1.0, int(self._bits[number]))
            yield slice(max(start, group.start), min(stop, group.stop)), scale
