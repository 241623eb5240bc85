"""Numbers as int64 multiples of one power of two: their sum does not depend on grouping or order.

A contribution x (one micro-batch's gradient or tally) is rounded to q = rint(x * 2^s) and added to
an int64 accumulator. Integer addition is associative, so neither the number of ranks nor the
algorithm inside MPI changes a bit of the sum. The scale s is one constant of a run.

Error. The product is exact: float32 and float64 times a power of two, in float64. (Bits lost below
the smallest float64 are far below 2^-s.) rint is off by at most 1/2, so that the sum of n
contributions is off by at most n * 2^-(s+1). Reading it adds one rounding to the output's type.

Head-room. A step has at most n contributions, whatever the number of ranks. One is accepted if
|x| * 2^s <= 2^k, with 2^k the largest power of two <= (2^63 - 1) / n; rint keeps that bound, since
2^k is an integer. Any partial sum, of any contributions in any order, is then at most
n * 2^k <= 2^63 - 1: nothing can wrap. Both n and k come from the configuration, never from the
number of ranks.

Rounding of a float64 x below 2^51 / 2^s takes one addition: x + 1.5 * 2^52 / 2^s lies where floats
are 2^-s apart, so it is rounded to such a multiple (ties to even, as by rint), and its bits less
those of the constant are q.

The reducer calls this. Reproducible sums by integers are common in climate codes (order-invariant
sums, Hallberg & Adcroft 2014, doi:10.1016/j.parco.2014.04.007).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

ROUNDING = 1.5 * 2.0**52
BLOCK = 65536  # elements: the temporaries stay near the core, and the calls are few


class FixedPoint:
    """Rounds to multiples of 2^-scale_bits, with head-room for `num_contributions` a sum.

    scale: 2^s. limit: the largest |x| that is accepted, a power of two.
    """

    def __init__(self, num_contributions: int, scale_bits: int = 40) -> None:
        if num_contributions < 1:
            raise ValueError(f"found num_contributions {num_contributions}, expected at least 1")
        head_room_bits = ((2**63 - 1) // num_contributions).bit_length() - 1
        self.scale = 2.0**scale_bits
        self.limit = 2.0 ** (head_room_bits - scale_bits)
        self._scaled = np.empty(BLOCK, np.float64)
        self._rounded = np.empty(BLOCK, np.int64)

    def add(self, accumulator: Array, values: Array, scale: float | None = None) -> int | None:
        """Adds the rounded `values` (n,), float32 or float64, to `accumulator` (n,), int64.

        A `scale` of this call alone must be a power of two and at most that of the object, so that
        the limit holds.

        Returns None, or the index of the last element that is NaN, infinite or beyond `limit`;
        the blocks that hold such elements are left out of the sum.
        """
        offender = None
        scale = scale or self.scale
        for block in blocks_from_end(values.size):
            largest = largest_magnitude(values[block])
            if largest <= self.limit:
                accumulator[block] += self._round(values[block], scale, float(largest))
            elif offender is None:
                index = last_beyond(values[block], self.limit)
                offender = None if index is None else block.start + index
        return offender

    def _round(self, values: Array, scale: float, largest: float) -> Array:
        """The whole numbers next to `values` * `scale`, int64; overwritten by the next call."""
        scaled = self._scaled[: values.size]
        np.copyto(scaled, values)
        if largest * scale < 2**51:
            constant = ROUNDING / scale
            scaled += constant
            (bits,) = struct.unpack("<q", struct.pack("<d", constant))
            in_units: Array = scaled.view(np.int64)
            in_units -= bits
            return in_units
        scaled *= scale
        np.rint(scaled, out=scaled)
        rounded = self._rounded[: values.size]
        np.copyto(rounded, scaled, casting="unsafe")
        return rounded

    def to_float(self, accumulator: Array, out: Array, scale: float | None = None) -> None:
        """Writes the sum that `accumulator` (n,), integers, holds to `out` (n,), a float vector."""
        for block in blocks_from_end(accumulator.size):
            scaled = self._scaled[: block.stop - block.start]
            np.copyto(scaled, accumulator[block])
            scaled *= 1 / (scale or self.scale)
            np.copyto(out[block], scaled, casting="same_kind")


def blocks_from_end(size: int, length: int = BLOCK) -> Iterator[slice]:
    """Slices of at most `length` that cover [0, size), the last one first, the short one last."""
    for stop in range(size, 0, -length):
        yield slice(max(0, stop - length), stop)


def largest_magnitude(values: Array) -> np.floating[Any]:
    """The largest |x|, 0 of none; NaN, which compares false, if there is a NaN."""
    return max(-values.min(initial=0), values.max(initial=0))


def last_beyond(values: Array, limit: float) -> int | None:
    """The index of the last element that is NaN or beyond ±limit, None if all are within."""
    if largest_magnitude(values) <= limit:
        return None
    return int(np.flatnonzero(~(np.abs(values) <= limit))[-1])
