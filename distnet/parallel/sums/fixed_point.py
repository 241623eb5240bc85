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

import functools
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np

from distnet.base.arrays import Array

ROUNDING = 1.5 * 2.0**52
BLOCK = 65536  # elements: the temporaries stay near the core, and the calls are few


class FixedPoint:
    """Rounds to multiples of 2^-scale_bits, with head-room for `num_contributions` a sum.

    scale: 2^s. limit: the largest |x| that is accepted, a power of two.
    """

    def __init__(self, num_contributions: int, scale_bits: int = 40) -> None:
        self.scale = 2.0**scale_bits
        self.limit = 2.0 ** (_head_room_bits(num_contributions) - scale_bits)
        self._units = np.empty(BLOCK, np.int64)

    def add(
        self, accumulator: Array, values: Array, scale: float | None = None, *, first: bool = False
    ) -> int | None:
        """Adds the rounded `values` (n,), float32 or float64, to `accumulator` (n,), int64.

        The `first` contribution takes the place of what is there. A `scale` of this call alone must
        be a power of two and at most that of the object, so that the limit holds.

        Returns None, or the index of the last element that is NaN, infinite or beyond `limit`;
        the blocks that hold such elements are left out of the sum.
        """
        offender = None
        scale = scale or self.scale
        bound = min(self.limit, 2**51 / scale)
        for block in blocks_from_end(values.size):
            x, total = values[block], accumulator[block]
            units = total if first else self._units[: x.size]
            if is_within(x, bound):
                round_by_addition(x, scale, units)
            elif largest_magnitude(x) <= self.limit:
                round_by_rint(x, scale, units)
            else:
                index = last_beyond(x, self.limit)
                offender = block.start + index if offender is None else offender
                continue
            if not first:
                np.add(total, units, out=total)
        return offender

    def add_stack(self, accumulator: Array, stack: Array, *, first: bool = False) -> bool:
        """Adds the k rows of `stack` (k, n), as `add` each of them, in fewer passes over memory.

        Returns whether it did. If a number is too large to be rounded by addition, it did nothing:
        then rows have to be added one by one.
        """
        if not is_within(stack, min(self.limit, 2**51 / self.scale)):
            return False
        constant, bits = rounding_constant(self.scale)
        # The bits of the constant come off all at once. Modulo 2^64 that is exact.
        of_constants = np.array(len(stack) * bits % 2**64, np.uint64).view(np.int64)
        for block in blocks_from_end(accumulator.size):
            total = accumulator[block]
            for number, row in enumerate(stack[:, block]):
                takes_place = first and number == 0
                units = total if takes_place else self._units[: total.size]
                add_constant(row, constant, units)
                if not takes_place:
                    np.add(total, units, out=total)
            total -= of_constants
        return True

    def to_float(self, accumulator: Array, out: Array, scale: float | None = None) -> None:
        """Writes the sum that `accumulator` (n,), integers, holds to `out` (n,), a float vector."""
        unit = out.dtype.type(1 / (scale or self.scale))
        for block in blocks_from_end(accumulator.size):
            part = out[block]
            np.copyto(part, accumulator[block], casting="same_kind")
            part *= unit


class WideFixedPoint:
    """Fixed point of two words a number, for a few numbers that need range and digits at once.

    The high word holds a multiple of 2^-HIGH_BITS, the low one what is left of each contribution,
    as finely as the head-room allows. With a thousand contributions a number may be as large as
    2^41 and is rounded to a multiple of 2^-65, so that small differences of large sums are right.
    """

    HIGH_BITS = 12

    def __init__(self, num_contributions: int, size: int) -> None:
        head_room_bits = _head_room_bits(num_contributions)
        self.limit = 2.0 ** (head_room_bits - self.HIGH_BITS)
        # What is left is at most 2^-(HIGH_BITS + 1), half of the limit that the low scale gives.
        self._high, self._low = 2.0**self.HIGH_BITS, 2.0 ** (head_room_bits + self.HIGH_BITS)
        self._scales = np.array([[[self._high]], [[self._low]]])
        self._rest = np.empty(size)

    def add(self, accumulator: Array, values: Array) -> bool:
        """Adds the rows of `values` (k, size), float64, to `accumulator` (2, size), int64.

        Returns whether it did: if a number is NaN, infinite or beyond `limit`, it did nothing.
        """
        if not is_within(values, self.limit) and not largest_magnitude(values) <= self.limit:
            return False
        units = values * self._scales
        whole, rest = units
        np.rint(whole, out=whole)
        rest -= whole * (self._low / self._high)  # exact: of the bits of `values` the last ones
        np.rint(rest, out=rest)
        accumulator += np.add.reduce(units.astype(np.int64), axis=1)
        return True

    def to_float(self, accumulator: Array, out: Array) -> None:
        """Writes the sum that `accumulator` (2, size) holds to `out` (size,), float64."""
        high, low = accumulator
        np.multiply(high, 1 / self._high, out=out)
        np.multiply(low, 1 / self._low, out=self._rest)
        out += self._rest


def _head_room_bits(num_contributions: int) -> int:
    """k for a largest contribution of 2^k units, so that so many of them never wrap; see above."""
    if num_contributions < 1:
        raise ValueError(f"found num_contributions {num_contributions}, expected at least 1")
    return ((2**63 - 1) // num_contributions).bit_length() - 1


def is_within(values: Array, bound: float) -> bool:
    """Whether no |x| is beyond `bound`, as far as the sum of their squares tells.

    That is one call where a maximum takes several. False may be wrong, True is not: a quarter of
    the square is far from where float32 rounds the sum to the other side.
    """
    # Not np.dot, which warns where the sum overflows.
    return bool(np.vdot(values, values) <= bound * bound / 4)


def round_by_addition(x: Array, scale: float, out: Array) -> None:
    """The whole numbers next to `x` * `scale`, all below 2^51, as int64."""
    constant, bits = rounding_constant(scale)
    add_constant(x, constant, out)
    out -= bits


def add_constant(x: Array, constant: float, out: Array) -> None:
    """The bits of `x` + `constant`, in float64, as int64."""
    shifted = out.view(np.float64)
    np.copyto(shifted, x)
    shifted += constant


@functools.cache
def rounding_constant(scale: float) -> tuple[float, int]:
    """What is added to a float to round it to a multiple of 1 / `scale`; its bits."""
    constant = ROUNDING / scale
    (bits,) = struct.unpack("<q", struct.pack("<d", constant))
    return constant, bits


def round_by_rint(x: Array, scale: float, out: Array) -> None:
    """The whole numbers next to `x` * `scale`, all that fit into int64."""
    np.copyto(out, np.rint(np.multiply(x, scale, dtype=np.float64)), casting="unsafe")


def blocks_from_end(size: int, length: int = BLOCK) -> Iterator[slice]:
    """Slices of at most `length` that cover [0, size), the last one first, the short one last."""
    for stop in range(size, 0, -length):
        yield slice(max(0, stop - length), stop)


def largest_magnitude(values: Array) -> np.floating[Any]:
    """The largest |x|, 0 of none; NaN, which compares false, if there is a NaN."""
    least = np.minimum.reduce(values, axis=None, initial=0)
    return max(-least, np.maximum.reduce(values, axis=None, initial=0))


def last_beyond(values: Array, limit: float) -> int | None:
    """The index of the last element that is NaN or beyond ±limit, None if all are within."""
    if largest_magnitude(values) <= limit:
        return None
    return int(np.flatnonzero(~(np.abs(values) <= limit))[-1])
